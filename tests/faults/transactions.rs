//! `transactions`: transfers between accounts and copies from topic to topic, in transactions, while nodes and clients are
//! killed; then what is there is judged by what was promised.
//!
//! It owns the workloads' topics and who works on them. The numbered load goes on beside: its topic is what is copied.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_checker::{Effects, Verdict};
use headwater_sdk::NewTopic;
use headwater_tests::{PATIENCE, Random, until};

use crate::course::{Course, read_each};
use crate::fault::{Deck, Kind};
use crate::load::{self, Crew};
use crate::ordeal;

/// What `transactions.py` calls them.
const TOPICS: [&str; 2] = ["ledger", "copies"];
const CLIENTS: &[(&str, &str)] = &[
    ("bank", "bank-1"),
    ("bank", "bank-2"),
    ("copy", "copy-1"),
    ("copy", "copy-2"),
    ("watch", "watch"),
];
/// The reader along is never touched: it has no second life to tell it what it saw.
const MORTALS: u64 = 4;

/// Puts nodes and clients through faults for so long, then judges.
pub(crate) async fn run(
    mut course: Course,
    mut random: Random,
    lasts: Duration,
    only: &[Kind],
    folder: &Path,
) -> anyhow::Result<Verdict> {
    let bootstrap = course.lab.bootstrap("");
    create_topics(&bootstrap, course.load.partitions()).await?;
    let clients = CLIENTS.iter().map(|&(task, name)| (task, name.to_owned()));
    let partitions = course.load.partitions();
    let mut crew = Crew::start("transactions.py", folder, bootstrap, partitions, clients)?;
    let mut deck = Deck::new(Random::seeded(random.number()), course.lab.numbers(), only);
    let (mut faults, mut kills, mut zombies) = (0_u64, 0_u64, 0_u64);
    while course.started.elapsed() < lasts {
        let dealt = deck.deal().context("none of these faults is for so few nodes")?;
        ordeal::one(&mut course, dealt)
            .await
            .with_context(|| format!("after {faults} faults: {}", dealt.fault))?;
        faults += 1;
        let which = random.below(0..MORTALS) as usize;
        if random.below(0..3) == 0 {
            zombies += 1;
            let asleep = Duration::from_millis(random.below(500..12_000));
            crew.haunt(which, asleep).await?;
            course.say(&format!(
                "{} slept {asleep:?}, another in its place",
                crew.name(which)
            ));
        } else {
            kills += 1;
            crew.kill(which).await?;
            course.say(&format!("kill -9 {}", crew.name(which)));
        }
        crew.tend()?;
    }
    course.say(&format!(
        "{faults} faults of nodes, {kills} killed and {zombies} replaced clients of {} are over, {} lives",
        crew.len(),
        crew.lives()
    ));
    course.writes_go_through().await?;
    course.settle().await?;
    let files = crew.close().await.context("the end of the transactions")?;
    let mut effects = Effects::default();
    read_each(&files, |lines| effects.read(lines))?;
    let effects = effects.verdict();
    println!("{effects}");
    let verdict = course.close().await?;
    ensure!(effects.holds(), "transactions did not keep what they promise");
    Ok(verdict)
}

async fn create_topics(bootstrap: &str, partitions: u32) -> anyhow::Result<()> {
    let client = load::connect(bootstrap).await?;
    for name in TOPICS {
        let mut topic = NewTopic::new(name, i32::try_from(partitions)?)
            .with("retention.ms", "-1")
            .with("min.insync.replicas", "2");
        topic.replication_factor = Some(3);
        until(PATIENCE, "the topic", || async {
            Ok(Some(client.admin().create_topic(&topic).await?))
        })
        .await?;
    }
    client.close().await;
    Ok(())
}

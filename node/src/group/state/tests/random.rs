//! Clients that join, crash, leave and come back while time passes, and a log that refuses now and then, or takes its time
//! and may lose what it has not acknowledged: no partition has two owners in one generation, what was acknowledged is in
//! the log, and in the end everybody has something to do.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const PARTITIONS: usize = 6;

/// One client, as far as it has come.
#[derive(Default)]
struct Client {
    member: Name,
    generation: i32,
    joining: Option<CallId>,
    syncing: Option<CallId>,
    owns: Vec<String>,
    is_member: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// Client n goes on with whatever is next for it.
    Go(usize),
    /// It is gone without a word, and another process begins in its place.
    Crash(usize),
    Leave(usize),
    Commit(usize),
    Pass(u64),
    Refuse(bool),
    /// What is written stays on its way.
    Hold(bool),
    /// Another node takes over; of what is on its way it has so many writes at most.
    Failover(usize),
}

fn step(clients: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..clients).prop_map(Step::Go),
        1 => (0..clients).prop_map(Step::Crash),
        1 => (0..clients).prop_map(Step::Leave),
        4 => (0..clients).prop_map(Step::Commit),
        4 => (1..4000u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => (0..4usize).prop_map(Step::Failover),
    ]
}

struct World {
    lab: Lab,
    clients: Vec<Client>,
    /// By generation: who was told that it owns what.
    owners: BTreeMap<i32, BTreeMap<String, Name>>,
    /// The last one that was acknowledged.
    committed: i64,
    /// Commits that were not answered yet.
    committing: Vec<(CallId, i64)>,
    next_commit: i64,
}

impl World {
    fn new(clients: usize) -> Self {
        Self {
            lab: Lab::new(),
            clients: (0..clients).map(|_| Client::default()).collect(),
            owners: BTreeMap::new(),
            committed: -1,
            committing: Vec::new(),
            next_commit: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Go(n) => self.go(*n),
            Step::Crash(n) => self.clients[*n] = Client::default(),
            Step::Leave(n) => {
                let member = std::mem::take(&mut self.clients[*n]).member;
                if !member.is_empty() {
                    let _ = self.lab.leave(who(&member));
                }
            }
            Step::Commit(n) => self.commit(*n),
            Step::Pass(ms) => self.lab.pass(Duration::from_millis(*ms)),
            Step::Refuse(refuses) => self.lab.refuses = refuses.then_some(AppendRefused::NotNow),
            Step::Hold(holds) => {
                self.lab.holds = *holds;
                self.lab.settle();
            }
            Step::Failover(kept) => self.failover(*kept),
        }
        self.hear();
    }

    fn go(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if client.joining.is_some() || client.syncing.is_some() {
            return;
        }
        let (member, generation) = (client.member.clone(), client.generation);
        if !client.is_member {
            let call = self.lab.join(&member);
            self.clients[n].joining = Some(call);
            return;
        }
        match self.lab.beat(&member, generation) {
            Ok(()) => {}
            Err(GroupError::RebalanceInProgress) => {
                let call = self.lab.join(&member);
                let client = &mut self.clients[n];
                client.owns.clear();
                client.joining = Some(call);
            }
            Err(_) => self.clients[n] = Client::default(),
        }
    }

    fn commit(&mut self, n: usize) {
        let client = &self.clients[n];
        if !client.is_member || client.syncing.is_some() || client.joining.is_some() {
            return;
        }
        let (member, generation) = (client.member.clone(), client.generation);
        let next = self.next_commit;
        self.next_commit += 1;
        let call = self.lab.commit(who(&member), generation, next);
        self.committing.push((call, next));
    }

    /// What is in the log is all that another node has.
    fn failover(&mut self, kept: usize) {
        let on_their_way = std::mem::take(&mut self.lab.held);
        for (_, records) in on_their_way.into_iter().take(kept) {
            self.lab.log.extend(records);
        }
        let (calls, ids, refuses) = (self.lab.calls, self.lab.ids, self.lab.refuses);
        self.lab = Lab {
            calls,
            ids,
            refuses,
            ..self.lab.read_back()
        };
        // One that was never answered may have been kept.
        let found = self.lab.committed("t").unwrap_or(-1);
        let mut unanswered = self.committing.drain(..).map(|(_, offset)| offset);
        assert!(
            found == self.committed || unanswered.any(|offset| offset == found),
            "{found} after {} was acknowledged",
            self.committed
        );
        drop(unanswered);
        self.committed = found;
        for client in &mut self.clients {
            // Whoever does not know what it was given joins again.
            client.is_member &= client.syncing.is_none();
            (client.joining, client.syncing) = (None, None);
        }
    }

    /// Every client hears what it was answered.
    fn hear(&mut self) {
        for (call, offset) in std::mem::take(&mut self.committing) {
            if self.lab.waits(call) {
                self.committing.push((call, offset));
            } else if self.lab.outcome(call).is_ok() {
                self.committed = offset;
            }
        }
        for n in 0..self.clients.len() {
            if let Some(call) = self.clients[n].joining
                && !self.lab.waits(call)
            {
                self.clients[n].joining = None;
                let result = self.lab.joined(call);
                self.hear_joined(n, result);
            }
            if let Some(call) = self.clients[n].syncing
                && !self.lab.waits(call)
            {
                self.clients[n].syncing = None;
                let result = self.lab.synced(call);
                self.hear_synced(n, result);
            }
        }
        // Nothing is old enough to expire.
        if self.committed >= 0 {
            assert_eq!(
                self.lab.committed("t"),
                Some(self.committed),
                "acknowledged, and lost"
            );
        }
    }

    fn hear_joined(&mut self, n: usize, result: Result<Joined, GroupError>) {
        match result {
            Ok(joined) => {
                let shares = share(&joined);
                let client = &mut self.clients[n];
                client.member = joined.member.clone();
                client.generation = joined.generation.0;
                client.is_member = true;
                let shares: Vec<_> = shares.iter().map(|(id, given)| (&**id, &**given)).collect();
                let call = self.lab.sync(&joined.member, joined.generation.0, &shares);
                self.clients[n].syncing = Some(call);
                self.hear();
            }
            Err(GroupError::MemberIdRequired(member)) => self.clients[n].member = member,
            Err(GroupError::RebalanceInProgress | GroupError::NotAvailable) => {}
            Err(_) => self.clients[n] = Client::default(),
        }
    }

    fn hear_synced(&mut self, n: usize, result: Result<String, GroupError>) {
        let client = &mut self.clients[n];
        match result {
            Ok(given) => {
                let owners = self.owners.entry(client.generation).or_default();
                for partition in given.split(' ').filter(|partition| !partition.is_empty()) {
                    let owner = owners
                        .entry(partition.to_owned())
                        .or_insert_with(|| client.member.clone());
                    assert_eq!(*owner, client.member, "two owners of {partition}");
                    client.owns.push(partition.to_owned());
                }
            }
            Err(GroupError::RebalanceInProgress | GroupError::NotAvailable) => client.is_member = false,
            Err(_) => *client = Client::default(),
        }
    }

    /// The log takes everything and nobody fails any more: everything has an owner soon.
    fn calm_down(&mut self) {
        self.take(&Step::Refuse(false));
        self.take(&Step::Hold(false));
        for _ in 0..40 {
            for n in 0..self.clients.len() {
                self.take(&Step::Go(n));
            }
            self.take(&Step::Pass(3000));
        }
        let owned: Vec<_> = self
            .clients
            .iter()
            .flat_map(|client| client.owns.clone())
            .collect();
        let distinct: BTreeSet<_> = owned.iter().collect();
        assert_eq!((owned.len(), distinct.len()), (PARTITIONS, PARTITIONS));
        let members = self.lab.state.describe(GROUP).expect("it has members").members;
        assert_eq!(members.len(), self.clients.len());
        assert_eq!(self.lab.stage(), Stage::Stable);
        let mut other = self.lab.read_back();
        assert_eq!(other.state.describe(GROUP), self.lab.state.describe(GROUP));
        assert_eq!(other.state.live_bytes(), self.lab.state.live_bytes());
        other.pass(SESSION);
    }
}

/// The leader deals the partitions out, one to each in turn.
fn share(joined: &Joined) -> BTreeMap<Name, String> {
    let mut shares: BTreeMap<Name, String> = BTreeMap::new();
    if joined.members.is_empty() {
        return shares;
    }
    for partition in 0..PARTITIONS {
        let member = &joined.members[partition % joined.members.len()].member;
        let share = shares.entry(member.clone()).or_default();
        share.push_str(&format!("p{partition} "));
    }
    shares
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_nothing_acknowledged_is_lost(
        clients in 1usize..5,
        steps in prop::collection::vec(step(4), 0..150),
    ) {
        let mut world = World::new(clients);
        for step in &steps {
            let step = match step {
                Step::Go(n) => Step::Go(n % clients),
                Step::Crash(n) => Step::Crash(n % clients),
                Step::Leave(n) => Step::Leave(n % clients),
                Step::Commit(n) => Step::Commit(n % clients),
                other => other.clone(),
            };
            world.take(&step);
        }
        world.calm_down();
    }
}

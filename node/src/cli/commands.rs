//! The commands that are clients: each talks to a node like anybody else, and none reaches into its data folder.
//!
//! Owns their list and the runtime they run on.

use std::process::ExitCode;

use super::failure::Failure;
use super::{
    bench, cluster, consume, demo, group, link, module, produce, site, topic, transaction, transform,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create, list, describe, alter and delete topics
    Topic(topic::Arguments),
    /// Make a record of each line of standard input
    Produce(Box<produce::Arguments>),
    /// Print the records of a topic
    Consume(Box<consume::Arguments>),
    /// List, describe, reset and delete consumer groups and share groups
    Group(group::Arguments),
    /// List and describe transactions, find those that hang and abort them
    Transaction(transaction::Arguments),
    /// Write, build, try and add modules
    Module(module::Arguments),
    /// Deploy modules onto topics and watch them
    Transform(transform::Arguments),
    /// What flows between sites and their core
    Link(link::Arguments),
    /// Invite and enrol sites
    Site(site::Arguments),
    /// Who is in the cluster
    Cluster(cluster::Arguments),
    /// Measure, and say what was measured as JSON
    Bench(Box<bench::Arguments>),
    /// See it all work: an edge, a core, a week of flights
    Demo(demo::Arguments),
}

/// Runs a command to its end; the failure, if there is one, is told here.
pub(super) fn run(command: Command) -> ExitCode {
    let mut builder = if matches!(command, Command::Bench(_)) {
        // What is measured shares the machine with the client that measures: one thread is enough for it.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(act(command)),
        Err(why) => Err(Failure::new(format!("cannot start threads: {why}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn act(command: Command) -> Result<(), Failure> {
    match command {
        Command::Topic(arguments) => topic::run(arguments).await,
        Command::Produce(arguments) => produce::run(*arguments).await,
        Command::Consume(arguments) => consume::run(*arguments).await,
        Command::Group(arguments) => group::run(arguments).await,
        Command::Transaction(arguments) => transaction::run(arguments).await,
        Command::Module(arguments) => module::run(arguments).await,
        Command::Transform(arguments) => transform::run(arguments).await,
        Command::Link(arguments) => link::run(arguments).await,
        Command::Site(arguments) => site::run(arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Bench(arguments) => bench::run(*arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
    }
}

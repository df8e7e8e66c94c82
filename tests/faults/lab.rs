//! The lab: real nodes on hosts of their own, clients on another, a switch between them, and everything that can go wrong.
//!
//! It owns all of it and takes it down in the end. It must never leave a process, a mount or a namespace behind, nor
//! touch any that it has not made.

mod disk;
mod member;
mod namespace;
mod switch;
mod weather;

use std::path::{Path, PathBuf};

use anyhow::Context;
use headwater_tests::Random;

pub(crate) use self::disk::Disk;
pub(crate) use self::member::{KAFKA_PORT, Member, NodeNumber};
use self::namespace::Namespace;
pub(crate) use self::namespace::Port;
pub(crate) use self::switch::Switch;
pub(crate) use self::weather::Link;

/// The one cluster of a lab that several nodes found.
const CLUSTER_ID: &str = "faults";

/// What a lab is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Hosts.
    pub(crate) nodes: u8,
    /// How many of them have a node from the beginning; the others join when they are told to.
    pub(crate) founders: u8,
    pub(crate) disk_bytes: u64,
    pub(crate) folder: PathBuf,
    /// Properties of every node, as `KEY=VALUE`.
    pub(crate) properties: Vec<String>,
}

/// Hosts and cables, before anything runs: made while the program still has one thread.
pub(crate) struct Hosts {
    clients: Namespace,
    nodes: Vec<(NodeNumber, Namespace)>,
    switch: Namespace,
}

impl Hosts {
    /// Makes the hosts and moves this thread to the clients' host: every thread it starts from now on is there.
    pub(crate) fn new(nodes: u8) -> anyhow::Result<Self> {
        namespace::sweep()?;
        let ports: Vec<Port> = (0..=nodes).map(Port).collect();
        let switch = Namespace::new("switch")?;
        let clients = Namespace::new("clients")?;
        clients.plug(&switch, Port::CLIENTS, &ports)?;
        let mut members = Vec::new();
        for number in (1..=nodes).map(NodeNumber) {
            let host = Namespace::new(&number.0.to_string())?;
            host.plug(&switch, number.port(), &ports)?;
            members.push((number, host));
        }
        clients.enter()?;
        Ok(Self {
            clients,
            nodes: members,
            switch,
        })
    }
}

/// A running lab.
pub(crate) struct Lab {
    // Dropped in this order: processes, the switch, the clients' host.
    pub(crate) members: Vec<Member>,
    /// Those that were let go, whose logs can still be read.
    retired: Vec<Member>,
    pub(crate) switch: Switch,
    _clients: Namespace,
    /// Hosts without a node yet, the next one last.
    free: Vec<(NodeNumber, Namespace)>,
    plan: Plan,
}

impl Lab {
    /// Starts the switch and the first nodes, and waits until all are ready.
    pub(crate) async fn start(hosts: Hosts, plan: &Plan, random: Random) -> anyhow::Result<Self> {
        let Hosts {
            clients,
            mut nodes,
            switch,
        } = hosts;
        let ports = nodes.len() + 1;
        let switch = Switch::start(switch, ports, random)?;
        clients.hello()?;
        nodes.iter().try_for_each(|(_, host)| host.hello())?;
        switch.knows_all(ports).await?;

        let mut free = nodes.split_off(usize::from(plan.founders).min(nodes.len()));
        free.reverse();
        let quorum = quorum(nodes.iter().map(|(number, _)| *number));
        let mut lab = Self {
            members: Vec::new(),
            retired: Vec::new(),
            switch,
            _clients: clients,
            free,
            plan: plan.clone(),
        };
        for (number, host) in nodes {
            lab.add(number, host, quorum.clone())?;
        }
        lab.members.iter_mut().try_for_each(Member::start)?;
        lab.all_ready().await?;
        Ok(lab)
    }

    fn add(&mut self, number: NodeNumber, host: Namespace, quorum: Vec<String>) -> anyhow::Result<()> {
        let plan = &self.plan;
        let properties = plan.properties.iter();
        let properties = properties.flat_map(|property| ["--set".to_owned(), property.clone()]);
        let arguments = quorum.into_iter().chain(properties).collect();
        let disk = Disk::new(&plan.folder, &format!("node-{}", number.0), plan.disk_bytes)?;
        self.members
            .push(Member::new(number, host, disk, &plan.folder, arguments));
        Ok(())
    }

    /// Starts a node on the next host, which joins the running cluster of this id by the address of one of its members.
    pub(crate) async fn join(&mut self, cluster: &str) -> anyhow::Result<NodeNumber> {
        let (number, host) = self.free.pop().context("no host is free")?;
        let known = self.members.iter().find(|member| member.is_up());
        let known = known.context("nobody is there to join")?.number;
        self.add(number, host, membership(&[known], cluster))?;
        let member = self.member(number);
        member.start()?;
        member.ready().await?;
        Ok(number)
    }

    /// Waits for the end of a node that was let go, and counts it out.
    pub(crate) async fn retire(&mut self, number: NodeNumber) -> anyhow::Result<()> {
        self.member(number).ended().await?;
        let (gone, stay) = std::mem::take(&mut self.members)
            .into_iter()
            .partition(|member| member.number == number);
        self.members = stay;
        self.retired.extend::<Vec<_>>(gone);
        Ok(())
    }

    pub(crate) fn member(&mut self, number: NodeNumber) -> &mut Member {
        let found = self.members.iter_mut().find(|member| member.number == number);
        found.expect("faults name nodes of the lab")
    }

    pub(crate) fn numbers(&self) -> Vec<NodeNumber> {
        self.members.iter().map(|member| member.number).collect()
    }

    pub(crate) async fn all_ready(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.ready().await?;
        }
        Ok(())
    }

    /// Fails with the log of a node that has ended by itself.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if let Some(status) = member.has_ended()? {
                anyhow::bail!(
                    "{} has ended by itself: {status}\n{}",
                    member.number,
                    member.tail()
                );
            }
        }
        Ok(())
    }

    /// Stops every node in order, one after the other.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.is_up()) {
            member.terminate().await?;
        }
        Ok(())
    }

    /// Addresses for a client, with this scheme in front of each.
    pub(crate) fn bootstrap(&self, scheme: &str) -> String {
        let address = |member: &Member| format!("{scheme}{}:{KAFKA_PORT}", member.number.port().address());
        self.members.iter().map(address).collect::<Vec<_>>().join(",")
    }
}

/// Arguments that make nodes a cluster; none for a single one.
fn quorum(numbers: impl ExactSizeIterator<Item = NodeNumber>) -> Vec<String> {
    if numbers.len() < 2 {
        return Vec::new();
    }
    membership(&numbers.collect::<Vec<_>>(), CLUSTER_ID)
}

fn membership(known: &[NodeNumber], cluster: &str) -> Vec<String> {
    let voters: Vec<String> = known
        .iter()
        .map(|number| format!("{}@{}:{KAFKA_PORT}", number.0, number.port().address()))
        .collect();
    ["--voters", &voters.join(","), "--cluster-id", cluster]
        .map(str::to_owned)
        .to_vec()
}

/// A folder for everything a run leaves: histories, logs, disks.
pub(crate) fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

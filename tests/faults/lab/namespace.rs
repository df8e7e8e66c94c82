//! Network namespaces: a host of its own for every node, one for the clients, one for the switch between them.
//!
//! It owns the namespaces it makes, by names that hold this process's id, and removes them in the end. It must never
//! touch the network that the machine itself uses.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Child;
use tokio::runtime::Handle;

/// All hosts of a lab share this network, which no packet leaves.
const NETWORK: [u8; 3] = [10, 77, 0];
const BROADCAST: Ipv4Addr = Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], 255);
const PREFIX: &str = "headwater-faults";

/// One host's place at the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port(pub(crate) u8);

impl Port {
    /// Where the clients are.
    pub(crate) const CLIENTS: Self = Self(0);

    pub(crate) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], 10 + self.0)
    }

    /// A locally administered address that says which port it is.
    pub(crate) fn mac(self) -> [u8; 6] {
        [0x02, b'h', b'w', 0, 0, self.0]
    }

    pub(crate) fn of_mac(mac: &[u8]) -> Option<Self> {
        let (last, first) = mac.split_last()?;
        (first == &Self(0).mac()[..5]).then_some(Self(*last))
    }

    fn mac_text(self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A network namespace of our own. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}-{}-{role}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Puts a host's cable into a port of the switch; `ports` are all there are, the host's own among them.
    pub(crate) fn plug(&self, switch: &Self, port: Port, ports: &[Port]) -> anyhow::Result<()> {
        let far = format!("port{}", port.0);
        switch.ip(&[
            "link",
            "add",
            &far,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &self.name,
            "address",
            &port.mac_text(),
        ])?;
        switch.ip(&["link", "set", &far, "up"])?;
        self.ip(&[
            "addr",
            "add",
            &format!("{}/24", port.address()),
            "broadcast",
            &BROADCAST.to_string(),
            "dev",
            "eth0",
        ])?;
        // The switch sees whole frames only if the kernel cuts them and sums them up itself.
        let plain = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        run(Command::new("ip")
            .args(["netns", "exec", &self.name, "ethtool", "-K", "eth0"])
            .args(plain))?;
        self.ip(&["link", "set", "eth0", "up"])?;
        // Known for good: behind a router nobody learns from a missing neighbour that a host is cut off.
        for other in ports.iter().filter(|other| **other != port) {
            let (address, mac) = (other.address().to_string(), other.mac_text());
            self.ip(&[
                "neigh",
                "replace",
                &address,
                "lladdr",
                &mac,
                "nud",
                "permanent",
                "dev",
                "eth0",
            ])?;
        }
        Ok(())
    }

    fn ip(&self, args: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", self.name.as_str()], args].concat())
    }

    /// Moves the calling thread, and every thread that it starts from now on, into this namespace.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        let path = Path::new("/run/netns").join(&self.name);
        let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace: this needs root")
    }

    /// Runs something on a thread in this namespace, and waits for it.
    fn inside<T: Send>(&self, what: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                what()
            });
            thread
                .join()
                .unwrap_or_else(|_| bail!("a thread in namespace {} has panicked", self.name))
        })
    }

    /// Starts a process in this namespace.
    pub(crate) fn spawn(&self, mut command: tokio::process::Command) -> anyhow::Result<Child> {
        let runtime = Handle::current();
        self.inside(move || {
            let _runtime = runtime.enter();
            command
                .spawn()
                .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))
        })
    }

    /// Sends one frame to everybody, so that the switch learns where this host is.
    pub(crate) fn hello(&self) -> anyhow::Result<()> {
        self.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_broadcast(true)?;
            // The discard port: nobody listens.
            socket.send_to(b"hello", (BROADCAST, 9))?;
            Ok(())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It goes with its last process; one left behind is in the way of nobody.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Removes what runs that were killed have left.
pub(crate) fn sweep() -> anyhow::Result<()> {
    let listed = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .context("ip is missing: install iproute2")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.trim_start_matches('-').split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            ip(&["netns", "del", name])?;
        }
    }
    Ok(())
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(args))
}

/// Runs a tool to its end; what it said is the error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}: `cargo xtask faults` installs what is needed"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

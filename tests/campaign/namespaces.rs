//! Two networks with a wire between them, made of Linux' network namespaces: gateways, senders and the backend live in
//! one, Redis in the other. Each gateway has a link of its own to Redis, and a last one, which is never cut, is for
//! whoever looks at Redis.
//!
//! What goes wrong here is what the kernels' TCP makes of it: nobody is told, packets are lost on their way, sent again
//! later and later, and those that are still worth sending arrive after the link is up again.
//!
//! The namespaces have no name: each lives as long as a process that holds it, and that ends with this one, however it
//! ends. Nothing touches the network that the campaign was started in.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;

use crate::checker::Report;
use crate::support::redis::Elsewhere;

/// How many links fit into the network that is set aside for documentation (RFC 5737), four addresses each.
const LINKS_MAX: usize = 64;

/// How long whatever still runs when a scenario is over may take to notice.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is missing on this machine, if it cannot do this.
pub(crate) fn lacking() -> Option<String> {
    let link = ["--net", "ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"];
    let problem = match Command::new("unshare").args(link).stdin(Stdio::null()).output() {
        Ok(made) if made.status.success() => return None,
        Ok(made) => String::from_utf8_lossy(&made.stderr).trim().replace('\n', "; "),
        Err(error) => error.to_string(),
    };
    Some(format!("needs root and ip; hint: apt-get install iproute2, or sudo: {problem}"))
}

/// A namespace, and the process that holds it.
struct Namespace {
    holder: Child,
    handle: File,
}

impl Namespace {
    fn new() -> Self {
        // It says a word when the namespace is there, and ends when its input does.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of every Linux (util-linux)");
        let mut word = String::new();
        let said = holder.stdout.take().expect("its output is piped");
        BufReader::new(said).read_line(&mut word).expect("it says something, or ends");
        assert_eq!(word, "there\n", "no network namespace, see above");
        let handle = File::open(path_of(&holder)).expect("it is there");
        Self { holder, handle }
    }

    /// The command that runs in it what follows, in its own place.
    fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", path_of(&self.holder)), "--".to_owned()]
    }

    /// Has `ip` perform these lines.
    fn ip(&self, lines: &[String]) {
        let performed = self.try_ip(lines).expect("ip can be run");
        let problem = String::from_utf8_lossy(&performed.stderr);
        assert!(performed.status.success(), "ip does not perform {lines:?}: {problem}");
    }

    fn try_ip(&self, lines: &[String]) -> io::Result<Output> {
        let words = self.prefix();
        let mut ip = Command::new(&words[0])
            .args(&words[1..])
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // Dropped at once, and with it the pipe: that is the end of what it reads.
        ip.stdin.take().expect("its input is piped").write_all(lines.join("\n").as_bytes())?;
        ip.wait_with_output()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn path_of(holder: &Child) -> String {
    format!("/proc/{}/ns/net", holder.id())
}

/// Moves this thread, and no other.
#[cfg(target_os = "linux")]
fn enter(namespace: &File) {
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a network namespace");
}

#[cfg(not(target_os = "linux"))]
fn enter(_: &File) {
    unreachable!("only Linux has network namespaces, see `lacking`");
}

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing passes.
    Both,
    /// What Redis sends is lost.
    Replies,
}

/// The two networks.
pub(crate) struct Network {
    here: Namespace,
    there: Namespace,
    gateways: usize,
}

impl Network {
    /// With a link for each of so many gateways.
    pub(crate) fn new(gateways: usize) -> Self {
        assert!(gateways < LINKS_MAX, "there are {LINKS_MAX} links");
        let network = Self { here: Namespace::new(), there: Namespace::new(), gateways };
        network.here.ip(&["link set lo up".to_owned()]);
        for link in 0..=gateways {
            network.lay(link);
        }
        network
    }

    fn lay(&self, link: usize) {
        let (near, far) = addresses(link);
        let mac = format!("02:00:00:00:00:{link:02x}");
        let there = self.there.holder.id();
        self.here.ip(&[
            format!("link add a{link} type veth peer name b{link} address {mac} netns {there}"),
            format!("address add {near}/30 dev a{link}"),
            format!("link set a{link} up"),
            // Without this the kernel would find out in some seconds that nobody is there, and say so. Behind a router
            // it does not.
            format!("neighbour add {far} lladdr {mac} dev a{link} nud permanent"),
        ]);
        self.there
            .ip(&[format!("address add {far}/30 dev b{link}"), format!("link set b{link} up")]);
    }

    /// For the server of the other network; the tests reach it by the link that is never cut.
    pub(crate) fn there(&self) -> Elsewhere {
        let address = IpAddr::V4(addresses(self.gateways).1);
        Elsewhere { prefix: self.there.prefix(), address }
    }

    /// Where a gateway finds Redis.
    pub(crate) fn address_for(&self, gateway: usize) -> Ipv4Addr {
        assert!(gateway < self.gateways, "gateway {gateway} has no link");
        addresses(gateway).1
    }

    /// Cuts the links of these gateways at Redis' end: at the other one the kernel would tell the gateway.
    pub(crate) fn cut(&self, gateways: &[usize], cut: Cut) {
        let lines = gateways.iter().map(|gateway| match cut {
            Cut::Both => format!("link set b{gateway} down"),
            Cut::Replies => format!("route add blackhole {}/32", addresses(*gateway).0),
        });
        block_in_place(|| self.there.ip(&lines.collect::<Vec<_>>()));
    }

    /// Undoes the same cut.
    pub(crate) fn heal(&self, gateways: &[usize], cut: Cut) {
        let lines = gateways.iter().map(|gateway| match cut {
            Cut::Both => format!("link set b{gateway} up"),
            Cut::Replies => format!("route del blackhole {}/32", addresses(*gateway).0),
        });
        block_in_place(|| self.there.ip(&lines.collect::<Vec<_>>()));
    }
}

/// A link's ends: the gateways' and Redis'.
fn addresses(link: usize) -> (Ipv4Addr, Ipv4Addr) {
    let first = u8::try_from(4 * link).expect("there are fewer links");
    (Ipv4Addr::new(192, 0, 2, first + 1), Ipv4Addr::new(192, 0, 2, first + 2))
}

/// Plays `scenario` with all its threads, and all processes that they start, in the gateways' part of a new network.
pub(crate) fn play<Playing: Future<Output = Report>>(
    gateways: usize,
    scenario: impl FnOnce(Arc<Network>) -> Playing + Send,
) -> Report {
    let network = Arc::new(Network::new(gateways));
    let playing = || {
        enter(&network.here.handle);
        let entering = Arc::clone(&network);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .on_thread_start(move || enter(&entering.here.handle))
            .build()
            .expect("a runtime");
        let report = runtime.block_on(scenario(Arc::clone(&network)));
        runtime.shutdown_timeout(FAREWELL);
        report
    };
    let played = std::thread::scope(|scope| scope.spawn(playing).join());
    played.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

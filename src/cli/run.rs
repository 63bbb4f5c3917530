//! `oncehook run`: the gateway, from its configuration to its graceful end.
//!
//! What it consists of is left to `app`.

use std::error::Error as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, Running, StartError};
use crate::cli::Stdio;
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::files::Files;
use crate::cli::options::{DEV_API_KEY, DEV_API_SECRET};
use crate::cli::systemd;
use crate::config::{
    self, Config, InputFile, LoadError, LogFormat, Overrides, Relay, Sources, StoreKind, Tls,
};

const AFTER_HELP: &str = "\
Flags win over the environment (ONCEHOOK_SECTION__KEY), the environment over the
file. SIGTERM or Ctrl-C ends gracefully: not ready, drain, finish what is in
flight, settle; a second one ends at once.

SIGHUP, or another content of a file that the configuration is made from, makes
it read again: keys, routes, certificates, limits. All of it holds then, or
nothing of it; what needs a restart is told. `oncehook status` shows the result.

Examples:
  oncehook run --dev --backend http://127.0.0.1:8080/webhook
  oncehook run --config /etc/oncehook/oncehook.toml
  oncehook run --config oncehook.toml --store redis://127.0.0.1:6379/0";

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file, TOML
    #[arg(long, value_name = "FILE", env = "ONCEHOOK_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Where senders connect
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Backend of every route that names none
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// Where records are held: memory, or redis://… or rediss://…
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// For trials: key devkey, secret "secret", 127.0.0.1:8443, plain HTTP, memory, readable log, and
    /// 127.0.0.1:8080/webhook as backend unless another one is named
    #[arg(long)]
    dev: bool,
}

/// Runs the gateway until a signal ends it.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    // Before there are other threads.
    let socket = systemd::socket()?;
    let (config, inputs) = config::load_watched(&args.sources());
    let config = config.map_err(misconfigured)?;
    for warning in &config.warnings {
        writeln!(stdio.talk, "{warning}")?;
    }
    super::block_on_all_cores(serve((config, inputs), socket, args, stdio))
}

async fn serve(
    (config, inputs): (Config, Vec<InputFile>),
    socket: Option<TcpListener>,
    args: &Args,
    stdio: &mut Stdio<'_>,
) -> Ending {
    // Before the start, so that a signal that comes during it is not lost.
    let mut signals = Signals::new()?;
    app::init_log(&config).map_err(not_started)?;
    let mut running = app::start_on(socket, config.clone()).await.map_err(not_started)?;
    // A log for programs has the same in one line of its own.
    if config.log.format == LogFormat::Text {
        app::flush_log();
        summarize(&config, &running, args, stdio)?;
    }
    systemd::ready(&format!("listening on {}", running.address()));
    let name = tokio::select! {
        name = reloading(&mut running, Files::new(inputs), args, &mut signals) => name?,
        never = systemd::watchdog() => match never {},
    };
    systemd::stopping();
    tracing::info!(signal = name, "ending; a second signal ends at once");
    tokio::select! {
        () = running.stop() => Ok(Exit::Success),
        name = signals.end() => {
            tracing::warn!(signal = name, "ended at once; claims in flight lapse with their leases");
            Ok(Exit::No)
        }
    }
}

/// Reloads whenever there is a reason to, until a signal ends the gateway: its name.
async fn reloading(
    running: &mut Running,
    mut files: Files,
    args: &Args,
    signals: &mut Signals,
) -> Result<&'static str, Failure> {
    loop {
        let reason = tokio::select! {
            come = signals.next() => match come {
                Come::End(name) => return Ok(name),
                Come::Hangup if args.is_trial() => return Ok("HUP"),
                Come::Hangup => "HUP",
            },
            () = files.changed() => "files",
        };
        tracing::debug!(reason, "reading the configuration again");
        systemd::reloading();
        let sources = args.sources();
        // Apart, so that a file system that hangs keeps nobody from ending the gateway.
        let reading = tokio::task::spawn_blocking(move || config::load_watched(&sources));
        let (loaded, inputs) = tokio::select! {
            name = signals.end() => return Ok(name),
            read = reading => read.map_err(|error| Failure::new(Exit::Software, error))?,
        };
        // What came of it is told by the gateway.
        let holds = match loaded {
            Ok(config) => running.reload(config).is_ok(),
            Err(error) => {
                running.reload_failed(&error);
                false
            }
        };
        let listening = format!("listening on {}", running.address());
        // There is no other way to tell that a reload failed.
        systemd::ready(&if holds {
            listening
        } else {
            format!("{listening}; the last reload was rejected")
        });
        files.set(inputs);
    }
}

impl Args {
    /// Whether it runs in a terminal for a while, without a file to read again: there, HUP says that the terminal is
    /// closed.
    const fn is_trial(&self) -> bool {
        self.dev && self.config.is_none()
    }

    fn sources(&self) -> Sources {
        let (listen, backend, store) =
            (self.listen.clone(), self.backend.clone(), self.store.clone());
        Sources {
            file: self.config.clone(),
            environment: config::environment(),
            overrides: Overrides { listen, backend, store, dev: self.dev },
        }
    }
}

/// The signals that end the gateway, and the one that makes it read its configuration again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Come {
    /// The end; the signal's name.
    End(&'static str),
    Hangup,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Come {
        tokio::select! {
            _ = self.terminate.recv() => Come::End("TERM"),
            _ = self.interrupt.recv() => Come::End("INT"),
            _ = self.hangup.recv() => Come::Hangup,
        }
    }

    /// The next one that ends.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "TERM",
            _ = self.interrupt.recv() => "INT",
        }
    }
}

/// A configuration that cannot be used, with all that is wrong with it.
pub fn misconfigured(error: LoadError) -> Failure {
    match error {
        LoadError::Unreadable { file, source } => Failure::reading(&file, source),
        LoadError::Invalid(problems) => {
            Failure::message(Exit::Config, format!("the configuration is not valid\n{problems}"))
        }
    }
}

/// A start that failed: 69 if another process has what it needs, with the code of the system's refusal if there is one,
/// else with that of the configuration.
pub fn not_started(error: StartError) -> Failure {
    if error.is_in_use() {
        return Failure::new(Exit::Unavailable, error);
    }
    let mut cause = error.source();
    let mut refusal = None;
    while let Some(error) = cause {
        refusal = refusal.or_else(|| error.downcast_ref::<io::Error>().map(io::Error::kind));
        cause = error.source();
    }
    match refusal {
        Some(kind) => Failure::refused(kind, error),
        None => Failure::new(Exit::Config, error),
    }
}

fn summarize(
    config: &Config,
    running: &Running,
    args: &Args,
    stdio: &mut Stdio<'_>,
) -> io::Result<()> {
    let talk = &mut *stdio.talk;
    writeln!(talk, "oncehook {}", env!("CARGO_PKG_VERSION"))?;
    let (scheme, certificate) = match &config.tls {
        Tls::Off => ("http", String::new()),
        Tls::SelfSigned => ("https", "   self-signed certificate".to_owned()),
        Tls::Certificates(all) => ("https", format!("   certificates: {}", all.len())),
    };
    let address = running.address();
    if !config.enabled {
        writeln!(talk, "  NOTHING IS VERIFIED OR DEDUPLICATED (WEBHOOK_ENABLED=false)")?;
    }
    for route in &config.routes {
        let (url, backend) = (base(scheme, address), &route.upstream.backend);
        writeln!(talk, "  webhooks  {url}{} -> {backend}{certificate}", route.path)?;
    }
    match &config.relay {
        Relay::NotFound => writeln!(talk, "  the rest  404")?,
        Relay::Backend(upstream) => writeln!(talk, "  the rest  -> {}", upstream.backend)?,
    }
    match &config.store.kind {
        StoreKind::Memory => writeln!(talk, "  store     memory of this process")?,
        StoreKind::Disk(disk) => writeln!(talk, "  store     {}", disk.path.display())?,
        StoreKind::Redis(redis) => {
            writeln!(talk, "  store     Redis {}", redis.servers)?;
        }
    }
    let keys: usize = config.tenants.iter().map(|tenant| tenant.keys.len()).sum();
    writeln!(talk, "  keys      {keys} of {} tenant(s)", config.tenants.len())?;
    let admin = base("http", running.admin_address());
    writeln!(talk, "  admin     {admin}/livez /readyz /status /metrics")?;
    if config.dedup.shadow {
        writeln!(talk, "  SHADOW MODE: everything is forwarded; duplicates are only counted")?;
    }
    if args.dev {
        writeln!(
            talk,
            "  --dev: the usual key is {DEV_API_KEY:?}, its secret {DEV_API_SECRET:?}; for trials alone"
        )?;
        if let Some(route) = config.routes.first() {
            let url = base(scheme, address);
            writeln!(
                talk,
                "  try it:   oncehook trigger egress_ended --nodes 3 --to {url}{}",
                route.path
            )?;
        }
    }
    Ok(())
}

fn base(scheme: &str, address: SocketAddr) -> String {
    format!("{scheme}://{address}")
}

//! What a service manager is told (`sd_notify(3)`) and what it hands over (`sd_listen_fds(3)`), where there is one.
//!
//! What a socket is used for is left to `app`. Nobody who listens is no error: then there is nobody to tell.

use std::convert::Infallible;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::app;
use crate::cli::exit::{Exit, Failure};

/// How often within its time the watchdog is fed: `sd_watchdog_enabled(3)` advises half of it.
const FEEDINGS: u32 = 2;

/// The socket for webhooks, if the service manager has bound it. To be asked before there are other threads: it is
/// taken out of the environment.
///
/// # Errors
/// More sockets than one, or one that is no TCP socket that listens.
pub(super) fn socket() -> Result<Option<TcpListener>, Failure> {
    let mut handed = ListenFd::from_env();
    let wrong = |what: String| {
        Failure::message(Exit::Config, what).with_hint(
            "oncehook takes one listening TCP socket: one ListenStream= in its .socket unit",
        )
    };
    match handed.len() {
        0 => Ok(None),
        1 => handed.take_tcp_listener(0).map_err(|error| {
            wrong(format!("the service manager handed over no TCP socket: {error}"))
        }),
        many => Err(wrong(format!("the service manager handed over {many} sockets"))),
    }
}

/// The gateway serves, as `status` says.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says that this is over. `Type=notify-reload` wants the time with it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, if there is one, for as long as it is polled, and only while the runtime's threads do what they
/// are asked to.
pub(super) async fn watchdog() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    let pause = limit / FEEDINGS;
    tracing::debug!(limit_ms = limit.as_millis(), "the service manager's watchdog is fed");
    loop {
        app::pulse().await;
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

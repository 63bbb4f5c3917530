//! Carries one event to the backend within its budget, and says what came of it.
//!
//! Whether the event may be forwarded at all, and what a failure means to the record, is `claim`'s to decide. Here it
//! is only decided when a failed try may be repeated: never once a byte was written.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request, Uri};
use hyper::client::conn::TrySendError;
use rustls::AlertDescription;
use tokio::time::{sleep, timeout};

use crate::claim::exchange::Outcome;

use super::connection::Wire;
use super::outcome::classify;
use super::pool::Freshness;
use super::{Forward, ForwardError, Forwarded, Outgoing, Upstream};

/// The waits before the own retries, and so their number. Short: the sender retries too, and later.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];

/// How far a forward has come, for when its time ends.
#[derive(Default)]
struct Progress {
    tries: u32,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    /// All connections are in use.
    #[default]
    Waiting,
    /// A connection is being made, or a retry awaited.
    Connecting,
    /// The request was handed to a connection.
    Sent { wire: Arc<Wire>, address: SocketAddr },
}

/// Why one try brought no answer.
struct Failure {
    error: ForwardError,
    /// The connection had carried a request before: the backend may just have closed it.
    stale: bool,
}

impl Upstream {
    /// Forwards an event, and returns within its budget.
    ///
    /// The head of an answer is enough: what follows is read in the background, and cannot change the outcome. A try
    /// that failed before its first byte is repeated: at once on a new connection if it met a stale one, else twice at
    /// most, after a short pause. Not cancel safe: a forward that is dropped may have reached the backend.
    pub async fn forward(&self, forward: Forward<'_>) -> Forwarded {
        let mut progress = Progress::default();
        let result = timeout(forward.budget, pin!(self.persist(&forward, &mut progress))).await;
        let result = result.unwrap_or_else(|_| Err(progress.stage.timed_out()));
        let tries = progress.tries;
        match result {
            Ok(outcome) => Forwarded { outcome, detail: None, tries },
            Err(error) => Forwarded { outcome: error.outcome(), detail: Some(error), tries },
        }
    }

    async fn persist(
        &self,
        forward: &Forward<'_>,
        progress: &mut Progress,
    ) -> Result<Outcome, ForwardError> {
        let mut freshness = Freshness::Reused;
        let mut pauses = PAUSES.into_iter();
        loop {
            let tried = pin!(self.attempt(forward, freshness, progress)).await;
            let failure = match tried {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if !failure.error.may_repeat() {
                return Err(failure.error);
            }
            progress.stage = Stage::Connecting;
            if failure.stale {
                freshness = Freshness::New;
                continue;
            }
            match pauses.next() {
                Some(pause) => sleep(pause).await,
                None => return Err(failure.error),
            }
        }
    }

    async fn attempt(
        &self,
        forward: &Forward<'_>,
        freshness: Freshness,
        progress: &mut Progress,
    ) -> Result<Outcome, Failure> {
        let fresh = |error| Failure { error, stale: false };
        let slot = self.pool.slot().await.map_err(fresh)?;
        progress.stage = Stage::Connecting;
        progress.tries = progress.tries.saturating_add(1);
        let mut lent = self.pool.lend(slot, freshness).await.map_err(fresh)?;
        let (mut request, interim) =
            watched(forward, self.rules.uri(&forward.head.uri), self.rules.webhook(forward));
        *request.method_mut() = forward.head.method.clone();
        // Last thing before the connection's task has the request: a stall until here is noticed.
        if !(forward.may_write)() {
            lent.give_back(None);
            return Err(fresh(ForwardError::DeadlinePassed));
        }
        progress.stage = Stage::Sent { wire: lent.wire(), address: lent.address() };
        let answered = pin!(lent.send(request)).await;
        match answered {
            Ok(response) => {
                lent.heard(&response);
                let (head, rest) = response.into_parts();
                lent.give_back(Some(rest));
                Ok(classify(head.status, &head.headers, &self.refused))
            }
            Err(refusal) => {
                let written = lent.wire().seal();
                lent.lost();
                let stale = lent.is_reused() && !written;
                let trace = Trace { written, interim: interim.load(Ordering::Acquire) };
                Err(Failure { error: explain(refusal, trace, lent.address()), stale })
            }
        }
    }
}

/// The request, and whether interim answers (1xx) came to it.
fn watched(
    forward: &Forward<'_>,
    uri: Uri,
    headers: HeaderMap,
) -> (Request<Outgoing>, Arc<AtomicBool>) {
    let mut request = Request::new(Outgoing::whole(forward.body.clone()));
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let seen = Arc::new(AtomicBool::new(false));
    let interim = Arc::clone(&seen);
    hyper::ext::on_informational(&mut request, move |_| interim.store(true, Ordering::Release));
    (request, seen)
}

/// What a connection saw of a request that failed.
#[derive(Clone, Copy)]
pub(super) struct Trace {
    /// A byte of it was written.
    pub(super) written: bool,
    /// An interim answer came.
    pub(super) interim: bool,
}

/// Why there was no answer.
pub(super) fn explain(
    refusal: TrySendError<Request<Outgoing>>,
    trace: Trace,
    address: SocketAddr,
) -> ForwardError {
    let unsent = refusal.message().is_some();
    let source = refusal.into_error();
    if unsent || !trace.written {
        return ForwardError::Unwritten { address, source };
    }
    if source.is_parse() {
        return ForwardError::Unparsable { address, source };
    }
    if is_certificate_alert(&source) {
        return ForwardError::CertificateRefused { address, source };
    }
    if trace.interim {
        return ForwardError::InterimOnly { address, source };
    }
    ForwardError::Unanswered { address, source }
}

/// Whether the backend ended the connection over this gateway's certificate.
///
/// In TLS 1.3 a client's handshake is over before its certificate is looked at, so that the request may be on its way
/// by then; it is never read (RFC 8446, §4.4.2.4 and appendix D).
fn is_certificate_alert(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) =
            inner.and_then(|inner| inner.downcast_ref())
        {
            return names_certificate(*alert);
        }
        source = error.source();
    }
    false
}

const fn names_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

impl Stage {
    /// Why a forward failed whose time ended here.
    fn timed_out(self) -> ForwardError {
        match self {
            Self::Waiting => ForwardError::Exhausted,
            Self::Connecting => ForwardError::ConnectTimedOut,
            Self::Sent { wire, address } if wire.seal() => ForwardError::AnswerTimedOut { address },
            Self::Sent { address, .. } => ForwardError::WriteTimedOut { address },
        }
    }
}

impl ForwardError {
    /// Whether another try can help, and can do no harm.
    const fn may_repeat(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Unwritten { .. } => true,
            // A certificate that was refused will be; the others have no time left, or may have been heard.
            Self::CertificateRefused { .. }
            | Self::DeadlinePassed
            | Self::Exhausted
            | Self::ConnectTimedOut
            | Self::WriteTimedOut { .. }
            | Self::Unanswered { .. }
            | Self::AnswerTimedOut { .. }
            | Self::Unparsable { .. }
            | Self::InterimOnly { .. } => false,
        }
    }
}

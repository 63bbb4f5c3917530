//! The pages: `/livez`, `/readyz`, `/status`, `/metrics`.

use axum::Router;
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::State;
use super::readiness::Stage;
use crate::telemetry::metrics::{self, Degraded};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PAGES: &str = "no such page; there are:\n/livez    200 while the process runs\n/readyz   200 while webhooks are welcome, else 503\n/status   JSON, for `oncehook status`\n/metrics  OpenMetrics\n";

pub(super) fn router(state: State) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .fallback(|| async { page(StatusCode::NOT_FOUND, TEXT, PAGES.to_owned()) })
        .with_state(state)
}

/// Alive means able to answer this. What it depends on is no reason to be restarted.
async fn livez() -> Response {
    page(StatusCode::OK, TEXT, "alive\n".to_owned())
}

/// What `/readyz` says.
#[derive(Serialize)]
struct Answer {
    ready: bool,
    stage: &'static str,
    /// Why not, or what else should be known.
    reasons: Vec<String>,
    store: StoreState,
}

#[derive(Serialize)]
struct StoreState {
    kind: &'static str,
    degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    outage_seconds: Option<u64>,
}

async fn readyz(Of(state): Of<State>) -> Response {
    let stage = state.readiness.stage();
    let health = (state.store)();
    let mut reasons = Vec::new();
    match stage {
        Stage::Ready => {}
        Stage::Starting => reasons.push("the gateway is starting".to_owned()),
        Stage::Draining => reasons.push("the gateway is draining: it is about to end".to_owned()),
    }
    if let Some(outage) = health.outage {
        reasons.push(format!(
            "the {} store has been out for {} s; on_store_error decides meanwhile",
            health.kind,
            outage.as_secs()
        ));
    }
    let store = StoreState {
        kind: health.kind,
        degraded: health.outage.is_some(),
        outage_seconds: health.outage.map(|outage| outage.as_secs()),
    };
    let ready = stage == Stage::Ready;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&Answer { ready, stage: stage.label(), reasons, store }) {
        Ok(body) => page(status, JSON, body + "\n"),
        Err(error) => unwritable(&error),
    }
}

/// 200 whatever it says: whether the gateway is ready is for `/readyz` to tell.
async fn status(Of(state): Of<State>) -> Response {
    match serde_json::to_string(&(state.status)()) {
        Ok(body) => page(StatusCode::OK, JSON, body + "\n"),
        Err(error) => unwritable(&error),
    }
}

async fn metrics(Of(state): Of<State>) -> Response {
    let health = (state.store)();
    state.metrics.store_degraded(if health.outage.is_some() {
        Degraded::Yes
    } else {
        Degraded::No
    });
    if let Some(memory) = health.memory {
        state.metrics.store_memory(memory.records, memory.bytes, memory.evicted);
    }
    if let Some(disk) = health.disk {
        let (records, bytes) = (disk.records, disk.file_bytes);
        state.metrics.store_disk(records, bytes, disk.evicted, disk.set_aside);
    }
    match state.metrics.encode() {
        Ok(text) => page(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => unwritable(&error),
    }
}

fn unwritable(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "an admin page cannot be written");
    page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page cannot be written\n".to_owned())
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response {
    let kind = (CONTENT_TYPE, HeaderValue::from_static(kind));
    let fresh = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (status, [kind, fresh], body).into_response()
}

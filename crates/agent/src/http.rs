//! `/livez`, `/readyz` and `/metrics`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cellwall_abi::planted;
use cellwall_api::Snapshot;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::stats::Stats;

/// How long the loop may be away. It comes around every second; a plan of a full node takes less than one.
const ALIVE_WITHIN: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Shared {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stats: watch::Receiver<Stats>,
    metrics: Metrics,
}

/// Takes the address, so that a wrong one is an error of the start.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with --http"))
}

/// Serves until the task is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stats: watch::Receiver<Stats>,
) -> std::io::Result<()> {
    let metrics = Metrics::new(snapshots.clone(), stats.clone());
    axum::serve(listener, router(Shared { snapshots, stats, metrics })).await
}

/// Serves on a node that is disabled: alive, not ready, and it says why.
pub(crate) async fn serve_disabled(listener: TcpListener) -> std::io::Result<()> {
    let why = "[-] disabled by `cellwall node disable`; `cellwall node enable` ends that\n";
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { (StatusCode::SERVICE_UNAVAILABLE, why) }));
    axum::serve(listener, router).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(shared))
}

/// Alive is: the loop comes around. It does not depend on the API server, nor on anything the loop waits for.
async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    let away = shared.stats.borrow().alive.elapsed();
    if away < ALIVE_WITHIN {
        "ok\n".into_response()
    } else {
        let message = format!("the loop has not come around for {} s\n", away.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
    }
}

async fn readyz(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let snapshot = Arc::clone(&shared.snapshots.borrow());
    let status = &snapshot.status;
    let verbose =
        query.unwrap_or_default().split('&').any(|word| word == "verbose" || word.starts_with("verbose="));
    let mut text = String::new();
    for condition in &status.conditions {
        let fatal = !condition.ok && condition.required;
        if verbose || fatal {
            let sign = if condition.ok {
                "+"
            } else if fatal {
                "-"
            } else {
                "!"
            };
            let rest = if condition.message.is_empty() { &condition.reason } else { &condition.message };
            writeln!(text, "[{sign}] {}: {rest}", condition.r#type).expect("a string takes everything");
        }
    }
    text.push_str(if status.ready { "ok\n" } else { "not ready\n" });
    let is_ready = status.ready || planted("ready-whatever-is-missing");
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use cellwall_api::Publisher;
    use cellwall_api::v1alpha1::{Condition, NodeStatus};
    use tower::ServiceExt;

    use super::*;

    fn condition(name: &str, ok: bool, required: bool) -> Condition {
        let message = if ok { "" } else { "it is broken" };
        Condition {
            r#type: name.to_owned(),
            ok,
            reason: "Reason".to_owned(),
            message: message.to_owned(),
            required,
        }
    }

    /// What `path` answers for a node with these conditions whose loop came around `away` ago.
    async fn ask(path: &str, conditions: Vec<Condition>, away: Duration) -> (u16, String) {
        let ready = conditions.iter().all(|condition| condition.ok || !condition.required);
        let status = NodeStatus { conditions, ready, ..NodeStatus::default() };
        let snapshot =
            Snapshot { taken: Instant::now(), status, endpoints: Arc::default(), policies: Arc::default() };
        let snapshots = Publisher::new(snapshot).subscribe();
        let alive = Instant::now().checked_sub(away).expect("the machine has run for longer");
        let stats = watch::Sender::new(Stats { alive, ..Stats::default() }).subscribe();
        let metrics = Metrics::new(snapshots.clone(), stats.clone());
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = router(Shared { snapshots, stats, metrics }).oneshot(request).await.expect("infallible");
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("short");
        (code, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn ready_names_what_is_missing() {
        let conditions =
            || vec![condition("A", true, true), condition("B", false, true), condition("C", false, false)];
        let (code, text) = ask("/readyz", conditions(), Duration::ZERO).await;
        assert_eq!((code, text.as_str()), (503, "[-] B: it is broken\nnot ready\n"));
        let (code, text) = ask("/readyz?verbose", conditions(), Duration::ZERO).await;
        assert_eq!(
            (code, text.as_str()),
            (503, "[+] A: Reason\n[-] B: it is broken\n[!] C: it is broken\nnot ready\n")
        );
        let (code, text) = ask("/readyz", vec![condition("C", false, false)], Duration::ZERO).await;
        assert_eq!((code, text.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn alive_is_a_loop_that_comes_around_whatever_is_not_ready() {
        let broken = || vec![condition("B", false, true)];
        assert_eq!(ask("/livez", broken(), Duration::ZERO).await.0, 200);
        let (code, text) = ask("/livez", broken(), ALIVE_WITHIN + Duration::from_secs(1)).await;
        assert_eq!((code, text.as_str()), (503, "the loop has not come around for 61 s\n"));
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let (code, text) = ask("/metrics", Vec::new(), Duration::ZERO).await;
        assert_eq!(code, 200);
        assert!(text.contains("# TYPE cellwall_ready gauge\ncellwall_ready 1.0"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}

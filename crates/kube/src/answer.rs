//! How long the API server may take for one answer.

use std::time::Duration;

use tokio::time::timeout;

/// Many times what a busy API server takes. Whoever asks again would otherwise hang with a server that took the connection
/// and says nothing.
const LIMIT: Duration = Duration::from_secs(10);

/// The answer, or that there was none in time.
pub(crate) async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let silent = |_| kube::Error::Service(format!("it said nothing for {} s", LIMIT.as_secs()).into());
    timeout(LIMIT, answer).await.map_err(silent)?
}

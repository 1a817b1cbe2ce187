//! How the API server is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

/// How long a connection may take to come up; a watch that waits for it says nothing meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a kubelet puts token and certificate of a pod's service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why there is no client; no request has been made yet.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The kubeconfig that was named is not usable.
    #[error("cannot use the kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// No file was named, and there is none at the usual places.
    #[error("cannot find a kubeconfig ($KUBECONFIG, ~/.kube/config) and this is not a pod of a cluster: {0}")]
    NoKubeconfig(KubeconfigError),
    /// This is a pod, but its service account is not usable.
    #[error("cannot use this pod's service account, {ACCOUNT}; is automountServiceAccountToken on? {0}")]
    InCluster(InClusterError),
    /// The settings make no client.
    #[error("cannot make a client of these settings: {0}")]
    Settings(kube::Error),
}

/// A client: of the kubeconfig where one is given, else of the pod's service account where there is one, else of the
/// kubeconfig at the usual places. `context` chooses one of a kubeconfig; its current one otherwise.
pub async fn client(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, ClientError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |source| ClientError::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(wrong)?
        }
        None if context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().map_err(ClientError::InCluster)?
        }
        None => Config::from_kubeconfig(&options).await.map_err(ClientError::NoKubeconfig)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A failed request is told at once and tried again by its watch, with a delay of its own.
    config.default_retry = false;
    Client::try_from(config).map_err(ClientError::Settings)
}

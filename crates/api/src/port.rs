//! The port for questions from outside the node.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::tls::{Identity, IdentityError};

/// The port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another process has it, or it is not for this one.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no certificate for it.
    #[error("cannot make the certificate of {address}")]
    Identity {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: IdentityError,
    },
}

/// A listening port on 127.0.0.1, with a certificate of its own.
pub struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) identity: Identity,
    address: SocketAddr,
}

impl Port {
    /// Listens there; at any free port for 0.
    pub async fn bind(port: u16) -> Result<Self, PortError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| PortError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let identity = Identity::generate().map_err(|source| PortError::Identity { address, source })?;
        Ok(Self { listener, identity, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of its certificate, in 64 small hexadecimal digits: by it whoever asks tells this agent from any other process that
    /// has the port.
    pub fn fingerprint(&self) -> &str {
        &self.identity.fingerprint
    }
}

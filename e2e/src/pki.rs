//! Certificates, keys and kubeconfigs of one cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

/// Signs certificates of one cluster and writes them into its folder.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, whose certificate is `ca.crt` in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("cellwall-e2e", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.join("ca.crt"), issuer.pem())?;
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// Writes `file.crt` and `file.key`, good for clients and for servers at `addresses`, which may be names.
    pub fn sign(&self, file: &str, name: &str, group: Option<&str>, addresses: &[&str]) -> Result<()> {
        let addresses: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
        let mut params = CertificateParams::new(addresses)?;
        params.distinguished_name = subject(name, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(self.folder.join(format!("{file}.crt")), certificate.pem())?;
        fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Writes `file.key` and `file.pub`: what service account tokens are signed with and checked by.
    pub fn key_pair(&self, file: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem())?;
        fs::write(self.folder.join(format!("{file}.pub")), key.public_key_pem())?;
        Ok(())
    }

    /// Writes the kubeconfig at `to` of the one that `file.crt` names.
    pub fn kubeconfig(&self, file: &str, server: &str, to: &Path) -> Result<()> {
        let path = |name: String| self.folder.join(name).display().to_string();
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {
                "server": server, "certificate-authority": path("ca.crt".to_owned())}}],
            "users": [{"name": "u", "user": {
                "client-certificate": path(format!("{file}.crt")), "client-key": path(format!("{file}.key"))}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        fs::write(to, config.to_string()).with_context(|| format!("cannot write {}", to.display()))
    }
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject
}

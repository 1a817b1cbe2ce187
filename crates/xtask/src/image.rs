//! The container image, out of the folders that `scripts/image.sh` fills. `deploy/Containerfile` says the same to a
//! container builder; a test compares the two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cellwall_oci::{Compression, Image, Layer, Process, Variant};
use clap::Args;

/// What `PATH` is in the image, so that `kubectl exec` finds the command.
const PATH: &str = "/bin";
const AGENT: &str = "/bin/cellwall-agent";

/// What to pack.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the archive goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of the image.
    #[arg(long, value_name = "NAME:TAG")]
    name: String,
    /// When it was made, in seconds since 1970: of the same sources always the same.
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    created: u32,
    /// Folders with the files of the image, each named like its architecture: amd64, arm64.
    #[arg(required = true, value_name = "FOLDER")]
    roots: Vec<PathBuf>,
}

/// Packs the image and prints its digest.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { out, name, created, roots } = arguments;
    let variants = roots.iter().map(|root| variant(root, created)).collect::<Result<_>>()?;
    let image = Image { name: name.clone(), created_s: created.into(), variants };
    let digests =
        cellwall_oci::write(&out, vec![image]).with_context(|| format!("cannot write {}", out.display()))?;
    println!("{name}@{}", digests[0]);
    Ok(())
}

fn variant(root: &Path, created: u32) -> Result<Variant> {
    let architecture =
        root.file_name().context("a root is a folder with a name")?.to_string_lossy().into_owned();
    let mut layer = Layer::new(Compression::Gzip, created.into());
    layer.tree(root).with_context(|| format!("cannot read {}", root.display()))?;
    Ok(Variant { architecture, layer, process: process() })
}

/// What runs unless the chart says otherwise.
fn process() -> Process {
    let label = |(name, value): (&str, &str)| (format!("org.opencontainers.image.{name}"), value.to_owned());
    let labels = BTreeMap::from(
        [
            ("title", "cellwall"),
            ("description", "Enforces Kubernetes network policies on the pods of a node"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("url", env!("CARGO_PKG_REPOSITORY")),
        ]
        .map(label),
    );
    Process {
        user: Some("0:0".to_owned()),
        env: vec![format!("PATH={PATH}")],
        entrypoint: vec![AGENT.to_owned()],
        labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever builds with the Containerfile gets the same image.
    #[test]
    fn the_containerfile_says_the_same() {
        let text = include_str!("../../../deploy/Containerfile");
        let instructions: Vec<&str> =
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let Process { user, env, entrypoint, labels } = process();
        let mut wanted = vec!["FROM scratch".to_owned(), "COPY . /".to_owned()];
        wanted.extend(user.map(|user| format!("USER {user}")));
        wanted.extend(env.iter().map(|variable| format!("ENV {variable}")));
        wanted.push(format!("ENTRYPOINT {entrypoint:?}"));
        wanted.extend(labels.iter().map(|(name, value)| format!("LABEL {name}={value:?}")));
        assert_eq!(instructions, wanted);
    }
}

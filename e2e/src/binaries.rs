//! Builds what a cluster consists of from Go modules. The versions are pinned in `e2e/binaries/go.mod`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::progress::Progress;
use crate::{image, places};

/// Version of Kubernetes, as its binaries tell it; the same as in go.mod, which a test checks.
pub const KUBERNETES: &str = "v1.37.2";

/// Name of each binary and the package it is built from.
const PACKAGES: [(&str, &str); 8] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
];

/// What upstream's tests need, and `make e2e` does not: their runner, and of e2e.test what is about NetworkPolicy.
const SUITE: [(&str, &str); 2] =
    [("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"), ("e2e.test", "cellwall.dev/e2e/binaries/netpol")];

/// Builds what is missing of a cluster. Quick when nothing is.
pub fn build(progress: Progress) -> Result<()> {
    let what = format!(
        "Kubernetes {KUBERNETES} and etcd from their Go modules (8 minutes on 2 cores the first time)"
    );
    build_all(&PACKAGES, "stamp", &what, progress, || {
        progress.say("packing the container images");
        image::pack(&places::binary("agnhost"), &places::images())
    })
}

/// Builds what is missing of upstream's tests. Quick when nothing is.
pub fn build_suite(progress: Progress) -> Result<()> {
    let what = format!(
        "upstream's tests of Kubernetes {KUBERNETES} (some minutes on 2 cores after a cluster's binaries)"
    );
    build_all(&SUITE, "suite.stamp", &what, progress, || Ok(()))
}

fn build_all(
    packages: &[(&str, &str)],
    stamp: &str,
    what: &str,
    progress: Progress,
    finish: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let root = places::root();
    fs::create_dir_all(root.join("bin")).with_context(|| format!("cannot make {}", root.display()))?;
    // Two runs that start together build once.
    let lock = File::create(root.join("lock")).context("cannot make the lock of the build")?;
    lock.lock().context("cannot wait for another build")?;

    let stamp = root.join("bin").join(stamp);
    let wanted = wanted(packages)?;
    if fs::read_to_string(&stamp).is_ok_and(|built| built == wanted) {
        return Ok(());
    }
    progress.say(&format!("building {what}"));
    for (index, (name, package)) in packages.iter().enumerate() {
        progress.say(&format!("  {} of {}: {name}", index + 1, packages.len()));
        go_build(package, name)?;
    }
    finish()?;
    fs::write(&stamp, wanted).context("cannot write the stamp of the build")
}

/// What the binaries depend on, as text that is equal when nothing needs to be built.
fn wanted(packages: &[(&str, &str)]) -> Result<String> {
    let mut text = format!("{packages:?}\n{}\n", image::LAYOUT);
    for name in ["go.mod", "go.sum", "netpol/netpol_test.go"] {
        text += &fs::read_to_string(module().join(name)).with_context(|| format!("cannot read {name}"))?;
    }
    Ok(text)
}

fn module() -> std::path::PathBuf {
    places::workspace().join("e2e/binaries")
}

fn go_build(package: &str, name: &str) -> Result<()> {
    // Tests are a program of their own.
    let verb: &[&str] = if Path::new(name).extension() == Some(OsStr::new("test")) {
        &["test", "-c", "-vet=off"]
    } else {
        &["build"]
    };
    let version = |name: &str| format!("-X {name}/version.gitVersion={KUBERNETES}");
    let (major, minor) = major_and_minor();
    let flags = [
        "-s -w".to_owned(),
        version("k8s.io/component-base"),
        version("k8s.io/client-go/pkg"),
        format!("-X k8s.io/component-base/version.gitMajor={major}"),
        format!("-X k8s.io/component-base/version.gitMinor={minor}"),
    ];
    let output = Command::new("go")
        .args(verb)
        .args(["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &flags.join(" "), "-o"])
        .arg(places::binary(name))
        .arg(package)
        .env("CGO_ENABLED", "0")
        .current_dir(module())
        .output()
        .context("cannot run go; Go 1.21 or later builds the cluster")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "building {package} failed:\n{said}");
    Ok(())
}

/// The first two numbers of [`KUBERNETES`].
pub fn major_and_minor() -> (&'static str, &'static str) {
    let mut parts = KUBERNETES.trim_start_matches('v').split('.');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

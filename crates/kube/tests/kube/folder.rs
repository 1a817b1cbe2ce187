//! The source over real folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellwall_kube::source::{Closed, SourceEvent, folder};
use cellwall_policy::model::{Change, Cluster, Kind, Problem, Touched};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far longer than anything takes; only a broken source waits for it.
const LONG: Duration = Duration::from_secs(30);

/// A folder, its source, and all that was told.
struct Place {
    root: TempDir,
    events: mpsc::Receiver<SourceEvent>,
    source: JoinHandle<Result<(), Closed>>,
    cluster: Cluster,
    /// Complete lists of each kind so far.
    listed: BTreeMap<Kind, usize>,
    failing: BTreeMap<Kind, String>,
    /// Why there may be policies that nobody knows of.
    partial: Option<String>,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.root.path().join("manifests")
    }

    /// With a folder that has these files; with none, there is no folder either.
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let path = root.path().join("manifests");
        let (sender, events) = mpsc::channel(2);
        if !files.is_empty() {
            fs::create_dir(&path).expect("the folder is ours");
        }
        for (name, text) in files {
            fs::write(path.join(name), text).expect("the folder is ours");
        }
        Self {
            root,
            events,
            source: tokio::spawn(folder(path, sender)),
            cluster: Cluster::new("n1"),
            listed: BTreeMap::new(),
            failing: BTreeMap::new(),
            partial: None,
        }
    }

    /// Writes in place: the file is empty for a moment.
    fn edit(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the folder is ours");
    }

    /// Writes beside the folder and moves it in.
    fn replace(&self, name: &str, text: &str) {
        let fresh = self.root.path().join("fresh");
        fs::write(&fresh, text).expect("the folder is ours");
        fs::rename(&fresh, self.path().join(name)).expect("the folder is ours");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("it is there");
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Change(change) => {
                if let Change::Listed(kind, _) = &change {
                    *self.listed.entry(*kind).or_default() += 1;
                    self.failing.remove(kind);
                }
                self.cluster.apply(change, &mut Touched::default());
            }
            SourceEvent::Current(kind) => {
                self.failing.remove(&kind);
            }
            SourceEvent::Failed(kind, why) => {
                self.failing.insert(kind, why);
            }
            SourceEvent::Partial(kind, why) => {
                assert_eq!(kind, Kind::NetworkPolicy);
                self.partial = why;
            }
            SourceEvent::Version(..) => panic!("a folder has no resourceVersions"),
            SourceEvent::NotServed(kind) => panic!("a folder has everything: {kind:?}"),
        }
    }

    /// Takes events until all is as wanted; a list may be halfway when it is.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        // From the beginning: something arrives at every poll.
        let end = tokio::time::Instant::now() + LONG;
        while !wanted(self) {
            let Ok(event) = tokio::time::timeout_at(end, self.events.recv()).await else {
                panic!("not {what}: {:#?} {:?}", self.cluster, self.failing);
            };
            self.take(event.expect("the source never ends by itself"));
        }
    }

    /// Until everything has been listed once more than it was.
    async fn pass(&mut self) {
        let before = self.listed.clone();
        let more = |place: &Self| {
            Kind::ALL.iter().all(|kind| {
                place.listed.get(kind).copied().unwrap_or(0) > before.get(kind).copied().unwrap_or(0)
            })
        };
        self.until("listed again", more).await;
    }

    fn policies(&self) -> Vec<String> {
        self.cluster.policies.keys().map(|key| format!("{}/{}", key.namespace, key.name)).collect()
    }

    fn problems(&self) -> Vec<&Problem> {
        self.cluster.problems.values().flatten().collect()
    }

    fn problem(&self) -> String {
        self.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.source.abort();
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: shop\nspec: {spec}\n"
    )
}

/// How many directions a policy isolates: tells versions apart.
fn isolates(place: &Place, name: &str) -> usize {
    let policy = place.cluster.policies.values().find(|policy| policy.key.name == name);
    policy.map_or(0, |policy| policy.isolates.iter().filter(|isolated| **isolated).count())
}

const BOTH: &str = "{policyTypes: [Ingress, Egress]}";

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_manifest_is_read_and_nothing_else() {
    let two = format!("{}---\n# nothing\n---\n{}", policy("a", "{}"), policy("b", "{}"));
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "c"}, "spec": {}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}]}"#;
    let typed = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p, namespace: far}\n  status: {podIP: 10.0.0.1}\n- metadata: {name: q}\n";
    let mut place = Place::new(&[
        ("two.yaml", &two),
        ("list.json", list),
        ("typed.yml", typed),
        ("other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"),
        (".hidden.yaml", &policy("hidden", "{}")),
        ("backup.yaml~", &policy("backup", "{}")),
        ("readme.txt", "{"),
        ("nameless.yaml", "apiVersion: v1\nkind: Pod\n---\njust: text\n"),
    ]);
    place.pass().await;
    assert_eq!(place.policies(), ["default/c", "shop/a", "shop/b"]);
    let pods: Vec<_> =
        place.cluster.pods.values().map(|pod| (pod.name.as_str(), pod.addresses.len())).collect();
    assert_eq!(pods, [("q", 0), ("p", 1)]);
    // As in every cluster, what is in a namespace has one, and that has its name as a label.
    let namespaces: Vec<_> = place.cluster.namespaces.values().collect();
    assert_eq!(namespaces.iter().map(|ns| ns.name.as_str()).collect::<Vec<_>>(), ["default", "far", "shop"]);
    assert!(namespaces.iter().all(|ns| ns.labels["kubernetes.io/metadata.name"] == ns.name));
    let problem = place.problem();
    assert_eq!(place.problems().len(), 1, "{problem}");
    for part in ["nameless.yaml", "document 1", "Pod has no metadata.name", "document 2", "no kind"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_renames_and_removals_are_followed() {
    let mut place = Place::new(&[("a.yaml", &policy("a", "{}"))]);
    place.pass().await;
    assert_eq!(isolates(&place, "a"), 1);

    place.edit("a.yaml", &policy("a", BOTH));
    place.until("the edit", |place| isolates(place, "a") == 2).await;
    place.replace("a.yaml", &policy("a", "{}"));
    place.until("the replacement", |place| isolates(place, "a") == 1).await;
    place.replace("b.yaml", &policy("b", BOTH));
    place.until("the new file", |place| isolates(place, "b") == 2).await;
    // What editors do: away with the old file, then a new one.
    fs::rename(place.path().join("b.yaml"), place.path().join("b.yaml~")).expect("it is there");
    place.edit("b.yaml", &policy("b", "{}"));
    place.until("the save", |place| isolates(place, "b") == 1).await;
    // The object stays, in a file of another name.
    fs::rename(place.path().join("a.yaml"), place.path().join("z.yaml")).expect("it is there");
    place.remove("b.yaml");
    place.until("the removal", |place| place.policies() == ["shop/a"]).await;
    assert!(place.problems().is_empty(), "{}", place.problem());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_parse_keeps_its_last_version_and_is_named() {
    let mut place = Place::new(&[("a.yaml", &policy("a", BOTH)), ("b.yaml", &policy("b", "{}"))]);
    place.pass().await;
    place.edit(
        "a.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a\nspec: ]\n",
    );
    place.replace("new.json", "{\"kind\": \n  oops}");
    place.until("two problems", |place| place.problems().len() == 2).await;
    let problem = place.problem();
    for part in [
        "manifests/a.yaml: line ",
        "its last version stays in force",
        "manifests/new.json: line 2",
        "nothing in this file has an effect",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    place.replace("b.yaml", &policy("b", BOTH));
    place.until("the other file", |place| isolates(place, "b") == 2).await;
    assert_eq!(isolates(&place, "a"), 2, "what was in force stays");
    place.edit("a.yaml", &policy("a", "{}"));
    place.remove("new.json");
    place.until("mended", |place| place.problems().is_empty() && isolates(place, "a") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_file_lifts_no_policy() {
    let mut place = Place::new(&[("a.yaml", &policy("a", BOTH))]);
    place.pass().await;
    place.edit("a.yaml", "\n");
    place
        .until("the problem", |place| place.problem().contains("remove the file to remove its objects"))
        .await;
    place.pass_over().await;
    assert_eq!(isolates(&place, "a"), 2);
    place.remove("a.yaml");
    place.until("removed", |place| place.policies().is_empty()).await;
    place.until("named", |place| place.problem().contains("the folder has no manifest")).await;
    assert!(place.partial.as_ref().is_some_and(|why| why.contains("has no manifest")), "{:?}", place.partial);
    place.replace("b.yaml", &policy("b", BOTH));
    place.until("a policy", |place| place.problems().is_empty() && isolates(place, "b") == 2).await;
    assert_eq!(place.partial, None);
}

/// Of a file that could never be read nobody knows what is in it, and whoever acts on the list is told before it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_read_makes_the_policies_partial() {
    let mut place = Place::new(&[("a.yaml", &policy("a", BOTH)), ("b.yaml", "kind: [\n")]);
    while place.partial.is_none() {
        assert!(place.listed.is_empty(), "it is said first");
        let event = timeout(LONG, place.events.recv()).await.expect("soon").expect("it goes on");
        place.take(event);
    }
    place.pass().await;
    let why = place.partial.clone().unwrap_or_default();
    assert!(why.contains("manifests b.yaml: cannot be parsed"), "{why}");
    place.replace("b.yaml", &policy("b", "{}"));
    place.until("mended", |place| place.partial.is_none() && isolates(place, "b") == 1).await;
    // Of this one the last version is known.
    place.replace("b.yaml", "kind: [\n");
    place.until("named", |place| place.problem().contains("its last version stays in force")).await;
    assert_eq!(place.partial, None);
}

impl Place {
    /// Takes what is on its way.
    async fn pass_over(&mut self) {
        while let Ok(Some(event)) = timeout(Duration::from_millis(200), self.events.recv()).await {
            self.take(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_same_object_in_two_files_the_first_counts_and_both_are_named() {
    let mut place = Place::new(&[("b.yaml", &policy("p", "{}")), ("a.yaml", &policy("p", BOTH))]);
    place.pass().await;
    assert_eq!(isolates(&place, "p"), 2);
    let problem = place.problem();
    assert!(
        problem.contains("shop/p: is in a.yaml and in b.yaml; the one in a.yaml is in force"),
        "{problem}"
    );
    place.remove("a.yaml");
    place.until("the other one", |place| isolates(place, "p") == 1 && place.problems().is_empty()).await;
    place.edit("b.yaml", &format!("{}---\n{}", policy("p", BOTH), policy("p", "{}")));
    place.until("the first of one file", |place| isolates(place, "p") == 2).await;
    place.until("named", |place| place.problem().contains("is in b.yaml more than once")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_missing_or_goes_away_is_named_and_nothing_is_lost() {
    let mut place = Place::new(&[]);
    place.until("a failure of every kind", |place| place.failing.len() == Kind::ALL.len()).await;
    let why = &place.failing[&Kind::Pod];
    assert!(why.contains(&place.path().display().to_string()) && why.contains("No such file"), "{why}");
    assert!(place.listed.is_empty(), "what cannot be read is not empty");

    fs::create_dir(place.path()).expect("the folder is ours");
    place.pass().await;
    assert!(
        place.failing.is_empty() && place.policies().is_empty(),
        "an empty folder is a cluster of nothing"
    );
    place.replace("a.yaml", &policy("a", BOTH));
    place.until("the policy", |place| isolates(place, "a") == 2).await;

    fs::rename(place.path(), place.root.path().join("aside")).expect("the folder is ours");
    place.until("a failure", |place| place.failing.len() == Kind::ALL.len()).await;
    assert_eq!(isolates(&place, "a"), 2, "what was known stays");
    fs::rename(place.root.path().join("aside"), place.path()).expect("the folder is ours");
    place.until("current again", |place| place.failing.is_empty()).await;
    place.edit("a.yaml", &policy("a", "{}"));
    place.until("followed again", |place| isolates(place, "a") == 1).await;

    fs::remove_dir_all(place.path()).expect("the folder is ours");
    place.until("a failure", |place| place.failing.len() == Kind::ALL.len()).await;
    assert_eq!(isolates(&place, "a"), 1, "what was known stays");
    fs::create_dir(place.path()).expect("the folder is ours");
    place.until("empty", |place| place.failing.is_empty() && place.policies().is_empty()).await;
}

/// What nobody can read costs nobody anything: time, memory, or other files.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_named_and_bounded() {
    let tenfold = |i: usize| {
        let last = if i == 0 { "x".to_owned() } else { format!("*a{}", i - 1) };
        format!("a{i}: &a{i} [{}]", [last.as_str(); 10].join(", "))
    };
    let bomb = (0..12).map(tenfold).collect::<Vec<_>>().join("\n");
    let deep = "[".repeat(100_000);
    let large = format!("# {}\n{}", "x".repeat(5 << 20), policy("large", "{}"));
    let mut place = Place::new(&[
        ("bomb.yaml", &bomb),
        ("deep.yaml", &deep),
        ("deep.json", &deep),
        ("large.yaml", &large),
        ("good.yaml", &policy("good", BOTH)),
    ]);
    fs::write(place.path().join("binary.yaml"), [0xff, 0xfe, 0]).expect("the folder is ours");
    fs::create_dir(place.path().join("folder.yaml")).expect("the folder is ours");
    let wanted = ["bomb.yaml", "deep.yaml", "deep.json", "large.yaml", "binary.yaml", "folder.yaml"];
    place.until("all are named", |place| wanted.iter().all(|name| place.problem().contains(name))).await;
    assert_eq!(place.problems().len(), wanted.len(), "{}", place.problem());
    assert!(place.problem().len() < 8192, "{}", place.problem().len());
    place.until("the good one", |place| place.policies() == ["shop/good"]).await;
}

/// How a kubelet puts a ConfigMap into a folder: links to links, of which one is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_is_followed() {
    fn version(root: &Path, name: &str, text: &str) {
        fs::create_dir(root.join(name)).expect("the folder is ours");
        fs::write(root.join(name).join("p.yaml"), text).expect("the folder is ours");
        symlink(name, root.join("..tmp")).expect("the folder is ours");
        fs::rename(root.join("..tmp"), root.join("..data")).expect("the folder is ours");
    }
    let mut place = Place::new(&[("x.txt", "")]);
    version(&place.path(), "..1", &policy("p", "{}"));
    symlink("..data/p.yaml", place.path().join("p.yaml")).expect("the folder is ours");
    place.until("the first", |place| isolates(place, "p") == 1).await;
    version(&place.path(), "..2", &policy("p", BOTH));
    place.until("the second", |place| isolates(place, "p") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_nobody_listens() {
    let root = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let (sender, events) = mpsc::channel(1);
    drop(events);
    let ended = timeout(LONG, folder(root.path().to_owned(), sender)).await.expect("it ends");
    assert_eq!(ended, Err(Closed));
}

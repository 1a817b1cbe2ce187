//! After a removal nothing is left.

use cellwall_datapath::{Attach, Datapath, OpenError, Removed, Settings, remove};

use crate::place::place;

#[test]
fn nothing_is_left_by_tcx_or_by_filters() {
    for attach in [Attach::Auto, Attach::Clsact] {
        place("remove", |place| {
            place.settings.attach = attach;
            let settings = place.settings.clone();
            let [pod, other, last] = [(); 3].map(|()| place.net.pod().expect("a pod"));
            let theirs = Datapath::open(&place.other()).expect("a data path");
            theirs.attach(last.ifindex).expect("an interface");

            let datapath = Datapath::open(&settings).expect("a data path");
            datapath.attach(pod.ifindex).expect("an interface");
            datapath.attach_node(other.ifindex).expect("an interface");
            let held = remove(&Settings { wait: None, ..settings.clone() });
            assert!(matches!(held, Err(OpenError::Locked { .. })), "{held:?}");
            assert_eq!(datapath.attached().expect("links").len(), 1, "what is in use stays");
            drop(datapath);

            let removed = remove(&settings).expect("nobody holds it");
            assert_eq!(removed.interfaces, 2, "{removed:?}");
            assert!(removed.pins > 20, "programs and tables: {removed:?}");
            assert!(!settings.root().exists());
            assert_eq!(remove(&settings).expect("again"), Removed::default(), "nothing there is fine");
            assert_eq!(theirs.attached().expect("links").len(), 1, "what is another's stays");

            drop(theirs);
            assert_eq!(remove(&place.other()).expect("nobody holds it").interfaces, 1);
            let tc = place.net.host.run(|| std::process::Command::new("tc").args(["qdisc", "show"]).output());
            let tc = String::from_utf8(tc.expect("iproute2").stdout).expect("text");
            assert!(!tc.contains("clsact"), "{tc}");
        });
    }
}

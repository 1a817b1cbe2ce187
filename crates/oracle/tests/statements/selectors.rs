//! S17-S29: selectors.

use crate::world::{Edit, check, check_policy, world};

/// A policy of x that allows ingress from pods of all namespaces with this selector.
fn from_pods(selector: &str) -> String {
    format!("{{ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {selector}}}]}}]}}")
}

fn from_namespaces(selector: &str) -> String {
    format!("{{ingress: [{{from: [{{namespaceSelector: {selector}}}]}}]}}")
}

const FROM_XB: &str = "x/a <- x/b TCP 80";
const FROM_YA: &str = "x/a <- y/a TCP 80";
const FROM_YB: &str = "x/a <- y/b TCP 80";
const FROM_ZA: &str = "x/a <- z/a TCP 80";

#[test]
fn s17_labels_and_expressions_are_anded() {
    let spec =
        from_pods("{matchLabels: {pod: a}, matchExpressions: [{key: app, operator: In, values: [db, web]}]}");
    check_policy(&spec, &[FROM_YA], &[FROM_XB, FROM_YB, FROM_ZA]);
    let spec = from_pods(
        "{matchExpressions: [{key: pod, operator: Exists}, {key: app, operator: NotIn, values: [db]}]}",
    );
    check_policy(&spec, &[FROM_XB, FROM_YB, FROM_ZA], &[FROM_YA]);
}

#[test]
fn s18_in_needs_the_key() {
    let spec = from_pods("{matchExpressions: [{key: app, operator: In, values: [db, web]}]}");
    check_policy(&spec, &[FROM_YA, FROM_XB], &[FROM_YB, FROM_ZA]);
}

#[test]
fn s19_notin_matches_without_the_key() {
    let spec = from_pods("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}");
    check_policy(&spec, &[FROM_YA, FROM_YB, FROM_ZA], &[FROM_XB]);
}

#[test]
fn s20_exists_and_doesnotexist_look_at_the_key() {
    check_policy(
        &from_pods("{matchExpressions: [{key: app, operator: Exists}]}"),
        &[FROM_XB, FROM_YA],
        &[FROM_YB],
    );
    check_policy(
        &from_pods("{matchExpressions: [{key: app, operator: DoesNotExist}]}"),
        &[FROM_YB],
        &[FROM_XB],
    );
}

#[test]
fn s21_an_empty_value_is_a_value() {
    let spec = from_pods("{matchLabels: {empty: ''}}");
    check_policy(&spec, &["x/b <- x/a TCP 80"], &[FROM_XB, FROM_YA, FROM_ZA]);
}

#[test]
fn s22_null_and_empty_peer_selectors() {
    // Null podSelector: all pods of the namespaces. Empty alone: all pods of the policy's own.
    check_policy(&from_namespaces("{matchLabels: {ns: y}}"), &[FROM_YA, FROM_YB], &[FROM_XB, FROM_ZA]);
    check_policy("{ingress: [{from: [{podSelector: {}}]}]}", &[FROM_XB], &[FROM_YA, FROM_ZA]);
    check_policy(&from_namespaces("{}"), &[FROM_XB, FROM_YA, FROM_ZA], &["x/a <- 192.0.2.1 TCP 80"]);
}

#[test]
fn s23_selectors_of_a_peer_are_anded_and_peers_are_ored() {
    let both = "{ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}]}]}";
    check_policy(both, &[FROM_YA], &[FROM_YB, FROM_ZA, FROM_XB]);
    let two = "{ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}]}]}";
    check_policy(two, &[FROM_YA, FROM_YB, FROM_XB], &[FROM_ZA]);
}

#[test]
fn s24_pod_selector_alone_stays_in_the_namespace() {
    let spec = "{ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}";
    check_policy(spec, &["x/b <- x/a TCP 80"], &["x/b <- y/a TCP 80", "x/b <- z/a TCP 80"]);
}

#[test]
fn s25_every_namespace_has_its_name_as_a_label() {
    let spec = from_namespaces("{matchLabels: {kubernetes.io/metadata.name: y}}");
    check_policy(&spec, &[FROM_YA], &[FROM_XB, FROM_ZA]);
    let spec = from_namespaces(
        "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [y]}]}",
    );
    check_policy(&spec, &[FROM_XB, FROM_ZA], &[FROM_YA]);
}

#[test]
fn s25_the_name_label_cannot_be_another() {
    let mut world = world().policy(&from_namespaces("{matchLabels: {kubernetes.io/metadata.name: y}}"));
    let labels = world.namespaces[2].metadata.labels.as_mut().expect("z has labels");
    labels.insert("kubernetes.io/metadata.name".into(), "y".into());
    check(&world, &[FROM_YA], &[FROM_ZA]);
}

#[test]
fn s25_a_namespace_that_is_not_known_is_not_selected() {
    let mut world = world().policy(&from_namespaces("{}"));
    world.namespaces.retain(|namespace| namespace.metadata.name.as_deref() != Some("y"));
    check(&world, &[FROM_ZA], &[FROM_YA]);
}

#[test]
fn s26_namespace_labels_change_peers() {
    let mut world = world().policy(&from_namespaces("{matchLabels: {tier: back}}"));
    check(&world, &[FROM_YA], &[FROM_ZA]);
    world.namespaces[2].metadata.labels.as_mut().expect("z has labels").insert("tier".into(), "back".into());
    check(&world, &[FROM_YA, FROM_ZA], &[]);
}

#[test]
fn s27_pod_labels_change_subjects_and_peers() {
    let spec = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    let mut world = world().policy(spec);
    check(&world, &["x/b <- y/a TCP 80", FROM_XB], &[FROM_YA]);
    world.pods[1].metadata.labels = Some([("pod".to_string(), "a".to_string())].into());
    check(&world, &["x/b <- x/a TCP 80"], &["x/b <- y/a TCP 80", FROM_XB]);
}

#[test]
fn s28_selectors_match_pods_only() {
    let world = world().policy("{ingress: [{from: [{namespaceSelector: {}}, {podSelector: {}}]}]}");
    let others = ["192.0.2.1", "192.168.0.1", "192.168.0.2", "10.2.0.77", "10.1.0.254"];
    for other in others {
        check(&world, &[], &[&format!("x/a <- {other} TCP 80")]);
    }
    check_policy(&from_pods("{matchLabels: {pod: nobody}}"), &[], &[FROM_XB, FROM_YA]);
}

const INVALID: [&str; 9] = [
    "{matchExpressions: [{key: pod, operator: Matches, values: [a]}]}",
    "{matchExpressions: [{key: pod, operator: in, values: [a]}]}",
    "{matchExpressions: [{key: nokey, operator: NotIn}]}",
    "{matchExpressions: [{key: nokey, operator: NotIn, values: []}]}",
    "{matchExpressions: [{key: pod, operator: In}]}",
    "{matchExpressions: [{key: nokey, operator: DoesNotExist, values: [a]}]}",
    "{matchExpressions: [{key: pod, operator: Exists, values: [a]}]}",
    "{matchExpressions: [{key: nokey, operator: NotIn, values: ['not a value!']}]}",
    "{matchExpressions: [{key: 'not a key!', operator: DoesNotExist}]}",
];

#[test]
fn s29_an_invalid_peer_selector_matches_nothing() {
    for selector in INVALID {
        check_policy(&from_pods(selector), &[], &[FROM_XB, FROM_YA, FROM_YB, FROM_ZA]);
        check_policy(&from_namespaces(selector), &[], &[FROM_XB, FROM_YA, FROM_YB, FROM_ZA]);
    }
}

#[test]
fn s29_an_invalid_pod_selector_isolates_and_allows_nothing() {
    for selector in INVALID {
        check_policy(
            &format!("{{podSelector: {selector}, ingress: [{{}}]}}"),
            &["x/a -> y/a TCP 80"],
            &[FROM_YA],
        );
        // The rest of the selector still says whom.
        let rest = selector.replacen('{', "{matchLabels: {pod: b}, ", 1);
        check_policy(
            &format!("{{podSelector: {rest}, ingress: [{{}}]}}"),
            &[FROM_YA],
            &["x/b <- y/a TCP 80"],
        );
    }
    // Another policy may still allow.
    let world = world().policy(&format!("{{podSelector: {}}}", INVALID[0])).policy("{ingress: [{}]}");
    check(&world, &[FROM_YA], &[]);
}

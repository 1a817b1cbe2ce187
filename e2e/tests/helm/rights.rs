//! What the API server lets the service account do.

use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::helm::NAMESPACE;

/// What is listed and watched, and nothing is read one by one. Of what is written, only what the nodes' objects say.
pub(crate) fn may_write_nothing_but_its_object(cluster: &Cluster) {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:cellwall");
    let may = |what: &str| {
        let arguments: Vec<&str> =
            ["auth", "can-i", "-A", &account].into_iter().chain(what.split(' ')).collect();
        // It exits with 1 when the answer is no.
        cluster.kubectl(&arguments, "").is_ok_and(|answer| answer.trim() == "yes")
    };
    for resource in [
        "pods",
        "nodes",
        "namespaces",
        "services",
        "endpointslices.discovery.k8s.io",
        "networkpolicies.networking.k8s.io",
    ] {
        for (verb, allowed) in [
            ("list", true),
            ("watch", true),
            ("get", false),
            ("create", false),
            ("patch", false),
            ("delete", false),
        ] {
            assert_eq!(may(&format!("{verb} {resource}")), allowed, "{verb} {resource}");
        }
    }
    let objects = "cellwallnodes.cellwall.dev";
    for verb in ["create", "patch", "list"] {
        assert!(may(&format!("{verb} {objects}")), "{verb} {objects}");
    }
    assert!(may(&format!("patch {objects} --subresource=status")));
    for verb in ["get", "watch", "update", "delete", "deletecollection"] {
        assert!(!may(&format!("{verb} {objects}")), "{verb} {objects}");
    }
    // Whoever asks from outside the node.
    for what in
        ["create tokenreviews.authentication.k8s.io", "create subjectaccessreviews.authorization.k8s.io"]
    {
        assert!(may(what), "{what}");
    }
    for what in [
        "list secrets",
        "list configmaps",
        "create pods --subresource=exec",
        "create serviceaccounts --subresource=token",
        "get pods --subresource=portforward",
        "get cellwallnodes.cellwall.dev --subresource=agent",
    ] {
        assert!(!may(what), "{what}");
    }
}

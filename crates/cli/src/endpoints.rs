//! `cellwall endpoints`.

use std::time::SystemTime;

use cellwall_api::v1alpha1::{Endpoint, EndpointDirection, ListEndpointsResponse};

use crate::output::Answer;
use crate::table;

impl Answer for ListEndpointsResponse {
    fn table(&self, wide: bool, _: SystemTime) -> String {
        if self.endpoints.is_empty() {
            return "No pods are enforced here.\n".to_owned();
        }
        if wide {
            let heading =
                ["NAMESPACE", "POD", "ADDRESSES", "ENFORCEMENT", "INGRESS", "EGRESS", "IFINDEX", "INTERFACE"];
            table::rows(heading, self.endpoints.iter().map(wide_row).collect())
        } else {
            let heading = ["NAMESPACE", "POD", "ADDRESSES", "ENFORCEMENT", "INGRESS", "EGRESS"];
            table::rows(heading, self.endpoints.iter().map(row).collect())
        }
    }

    fn names(&self) -> Vec<String> {
        let name = |e: &Endpoint| match &e.pod {
            Some(pod) => table::kubectl_name(pod),
            None => format!("interface/{}", e.interface),
        };
        self.endpoints.iter().map(name).collect()
    }
}

fn row(endpoint: &Endpoint) -> [String; 6] {
    let (namespace, name) = match &endpoint.pod {
        Some(pod) => (pod.namespace.clone(), pod.name.clone()),
        None => ("-".to_owned(), format!("<unknown, on {}>", endpoint.interface)),
    };
    [
        namespace,
        name,
        table::list(endpoint.addresses.iter().cloned()),
        enforcement(endpoint).to_owned(),
        direction(endpoint.ingress.as_ref(), false),
        direction(endpoint.egress.as_ref(), false),
    ]
}

fn wide_row(endpoint: &Endpoint) -> [String; 8] {
    let [namespace, name, addresses, enforcement, ..] = row(endpoint);
    [
        namespace,
        name,
        addresses,
        enforcement,
        direction(endpoint.ingress.as_ref(), true),
        direction(endpoint.egress.as_ref(), true),
        endpoint.ifindex.to_string(),
        endpoint.interface.clone(),
    ]
}

fn enforcement(endpoint: &Endpoint) -> &'static str {
    match (endpoint.attached, endpoint.pod.is_some(), endpoint.audit) {
        (false, ..) => "none",
        (true, false, _) => "unidentified",
        (true, true, true) => "audit",
        (true, true, false) => "enforce",
    }
}

/// `open` while nothing isolates the pod, else how many policies say what passes, or which.
fn direction(direction: Option<&EndpointDirection>, wide: bool) -> String {
    let Some(direction) = direction else { return "-".to_owned() };
    let state = if direction.isolated { "isolated" } else { "open" };
    match (direction.policies.as_slice(), wide) {
        ([], _) => state.to_owned(),
        (policies, true) => format!("{state} ({})", table::names(policies)),
        ([_], false) => format!("{state} (1 policy)"),
        (policies, false) => format!("{state} ({} policies)", policies.len()),
    }
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
mod tests {
    use cellwall_api::v1alpha1::ObjectReference;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::args::Format;
    use crate::output::render;

    fn object(kind: &str, name: &str) -> ObjectReference {
        ObjectReference { kind: kind.to_owned(), namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn endpoints() -> ListEndpointsResponse {
        let open = Some(EndpointDirection::default());
        let policies = vec![object("NetworkPolicy", "default-deny"), object("NetworkPolicy", "web")];
        let web = Endpoint {
            pod: Some(object("Pod", "web-0")),
            ifindex: 12,
            interface: "veth1a2b".to_owned(),
            addresses: vec!["10.0.0.2".to_owned(), "fd00::2".to_owned()],
            audit: false,
            ingress: Some(EndpointDirection { isolated: true, policies }),
            egress: open.clone(),
            attached: true,
            ..Endpoint::default()
        };
        let unknown = Endpoint {
            pod: None,
            ifindex: 14,
            interface: "veth\u{7}".to_owned(),
            addresses: Vec::new(),
            ..web.clone()
        };
        let detached = Endpoint { pod: Some(object("Pod", "db-0")), attached: false, ..web.clone() };
        ListEndpointsResponse { endpoints: vec![unknown, detached, web] }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the macro makes values")]
    fn check(format: Format, expected: Expect) {
        expected.assert_eq(&render(&endpoints(), format).expect("renders"));
    }

    #[test]
    fn table() {
        check(
            Format::Table,
            expect![[r#"
            NAMESPACE  POD                      ADDRESSES         ENFORCEMENT   INGRESS                EGRESS
            -          <unknown, on veth\u{7}>  -                 unidentified  isolated (2 policies)  open
            shop       db-0                     10.0.0.2,fd00::2  none          isolated (2 policies)  open
            shop       web-0                    10.0.0.2,fd00::2  enforce       isolated (2 policies)  open
        "#]],
        );
    }

    #[test]
    fn wide() {
        check(
            Format::Wide,
            expect![[r#"
            NAMESPACE  POD                      ADDRESSES         ENFORCEMENT   INGRESS                                EGRESS  IFINDEX  INTERFACE
            -          <unknown, on veth\u{7}>  -                 unidentified  isolated (shop/default-deny,shop/web)  open    14       veth\u{7}
            shop       db-0                     10.0.0.2,fd00::2  none          isolated (shop/default-deny,shop/web)  open    12       veth1a2b
            shop       web-0                    10.0.0.2,fd00::2  enforce       isolated (shop/default-deny,shop/web)  open    12       veth1a2b
        "#]],
        );
    }

    #[test]
    fn name() {
        check(
            Format::Name,
            expect![[r#"
            interface/veth\u{7}
            pod/db-0
            pod/web-0
        "#]],
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        let none = render(&ListEndpointsResponse::default(), Format::Table).expect("renders");
        assert_eq!(none, "No pods are enforced here.\n");
        assert_eq!(render(&ListEndpointsResponse::default(), Format::Name).expect("renders"), "");
    }
}

//! `cellwall policies`.

use std::time::SystemTime;

use cellwall_api::v1alpha1::{ListPoliciesResponse, Policy, Problem};

use crate::output::Answer;
use crate::table;

impl Answer for ListPoliciesResponse {
    fn table(&self, wide: bool, _: SystemTime) -> String {
        if self.policies.is_empty() {
            return "No policies are known.\n".to_owned();
        }
        let list = if wide {
            let heading =
                ["NAMESPACE", "NAME", "KIND", "GENERATION", "INGRESS RULES", "EGRESS RULES", "SELECTS HERE"];
            table::rows(heading, self.policies.iter().map(wide_row).collect())
        } else {
            let heading =
                ["NAMESPACE", "NAME", "KIND", "INGRESS RULES", "EGRESS RULES", "PODS HERE", "PROBLEMS"];
            table::rows(heading, self.policies.iter().map(row).collect())
        };
        table::sections(&[list, problems(self)])
    }

    fn names(&self) -> Vec<String> {
        self.policies.iter().filter_map(|p| p.policy.as_ref()).map(table::kubectl_name).collect()
    }
}

fn problems(list: &ListPoliciesResponse) -> String {
    let problems = list.policies.iter().flat_map(|policy| &policy.problems);
    let row = |problem: &Problem| {
        [table::name(problem.object.as_ref()), table::or_dash(problem.field.clone()), problem.message.clone()]
    };
    table::rows(["PROBLEM WITH", "FIELD", "MESSAGE"], problems.map(row).collect())
}

fn namespace_name_kind(policy: &Policy) -> [String; 3] {
    let object = policy.policy.clone().unwrap_or_default();
    [table::or_dash(object.namespace), object.name, object.kind]
}

fn row(policy: &Policy) -> [String; 7] {
    let [namespace, name, kind] = namespace_name_kind(policy);
    [
        namespace,
        name,
        kind,
        policy.ingress_rules.to_string(),
        policy.egress_rules.to_string(),
        policy.selects.len().to_string(),
        policy.problems.len().to_string(),
    ]
}

fn wide_row(policy: &Policy) -> [String; 7] {
    let [namespace, name, kind] = namespace_name_kind(policy);
    [
        namespace,
        name,
        kind,
        policy.generation.to_string(),
        policy.ingress_rules.to_string(),
        policy.egress_rules.to_string(),
        table::names(&policy.selects),
    ]
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
mod tests {
    use cellwall_api::v1alpha1::ObjectReference;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::args::Format;
    use crate::output::render;

    #[expect(clippy::unnecessary_wraps, reason = "the fields are optional")]
    fn object(kind: &str, namespace: &str, name: &str) -> Option<ObjectReference> {
        Some(ObjectReference {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    fn policies() -> ListPoliciesResponse {
        let all = Policy { policy: object("ClusterNetworkPolicy", "", "no-metadata"), ..Policy::default() };
        let policy = object("NetworkPolicy", "shop", "web");
        let problem = Problem {
            object: policy.clone(),
            field: "spec.ingress[0].from[0].ipBlock.cidr".to_owned(),
            message: "\"10.0.0.0/33\" is no CIDR: the peer matches nothing".to_owned(),
        };
        let web = Policy {
            policy,
            generation: 4,
            selects: [object("Pod", "shop", "web-0"), object("Pod", "shop", "web-1")]
                .into_iter()
                .flatten()
                .collect(),
            ingress_rules: 2,
            egress_rules: 0,
            problems: vec![problem],
        };
        ListPoliciesResponse { policies: vec![all, web] }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the macro makes values")]
    fn check(format: Format, expected: Expect) {
        expected.assert_eq(&render(&policies(), format).expect("renders"));
    }

    #[test]
    fn table() {
        check(
            Format::Table,
            expect![[r#"
            NAMESPACE  NAME         KIND                  INGRESS RULES  EGRESS RULES  PODS HERE  PROBLEMS
            -          no-metadata  ClusterNetworkPolicy  0              0             0          0
            shop       web          NetworkPolicy         2              0             2          1

            PROBLEM WITH  FIELD                                 MESSAGE
            shop/web      spec.ingress[0].from[0].ipBlock.cidr  "10.0.0.0/33" is no CIDR: the peer matches nothing
        "#]],
        );
    }

    #[test]
    fn wide() {
        check(
            Format::Wide,
            expect![[r#"
            NAMESPACE  NAME         KIND                  GENERATION  INGRESS RULES  EGRESS RULES  SELECTS HERE
            -          no-metadata  ClusterNetworkPolicy  0           0              0             -
            shop       web          NetworkPolicy         4           2              0             shop/web-0,shop/web-1

            PROBLEM WITH  FIELD                                 MESSAGE
            shop/web      spec.ingress[0].from[0].ipBlock.cidr  "10.0.0.0/33" is no CIDR: the peer matches nothing
        "#]],
        );
    }

    #[test]
    fn name() {
        check(
            Format::Name,
            expect![[r#"
            clusternetworkpolicy/no-metadata
            networkpolicy/web
        "#]],
        );
    }

    #[test]
    fn json() {
        check(
            Format::Json,
            expect![[r#"
            {
              "policies": [
                {
                  "policy": {
                    "kind": "ClusterNetworkPolicy",
                    "namespace": "",
                    "name": "no-metadata"
                  },
                  "generation": "0",
                  "selects": [],
                  "ingressRules": 0,
                  "egressRules": 0,
                  "problems": []
                },
                {
                  "policy": {
                    "kind": "NetworkPolicy",
                    "namespace": "shop",
                    "name": "web"
                  },
                  "generation": "4",
                  "selects": [
                    {
                      "kind": "Pod",
                      "namespace": "shop",
                      "name": "web-0"
                    },
                    {
                      "kind": "Pod",
                      "namespace": "shop",
                      "name": "web-1"
                    }
                  ],
                  "ingressRules": 2,
                  "egressRules": 0,
                  "problems": [
                    {
                      "object": {
                        "kind": "NetworkPolicy",
                        "namespace": "shop",
                        "name": "web"
                      },
                      "field": "spec.ingress[0].from[0].ipBlock.cidr",
                      "message": "\"10.0.0.0/33\" is no CIDR: the peer matches nothing"
                    }
                  ]
                }
              ]
            }
        "#]],
        );
    }

    #[test]
    fn yaml() {
        check(
            Format::Yaml,
            expect![[r#"
            policies:
            - policy:
                kind: ClusterNetworkPolicy
                namespace: ""
                name: no-metadata
              generation: "0"
              selects: []
              ingressRules: 0
              egressRules: 0
              problems: []
            - policy:
                kind: NetworkPolicy
                namespace: shop
                name: web
              generation: "4"
              selects:
              - kind: Pod
                namespace: shop
                name: web-0
              - kind: Pod
                namespace: shop
                name: web-1
              ingressRules: 2
              egressRules: 0
              problems:
              - object:
                  kind: NetworkPolicy
                  namespace: shop
                  name: web
                field: spec.ingress[0].from[0].ipBlock.cidr
                message: "\"10.0.0.0/33\" is no CIDR: the peer matches nothing"
        "#]],
        );
    }
}

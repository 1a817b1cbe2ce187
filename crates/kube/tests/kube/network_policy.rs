//! NetworkPolicies a user would write, and what becomes of them.

use expect_test::{Expect, expect};

/// Converts a NetworkPolicy `shop/p` with this spec.
#[expect(clippy::needless_pass_by_value, reason = "`expect!` makes a value")]
fn check(spec: &str, expected: Expect) {
    let lines: Vec<&str> = spec.trim().lines().map(|line| line.trim_start_matches("        ")).collect();
    let spec = lines.join("\n  ");
    let yaml = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  {spec}\n"
    );
    expected.assert_eq(&crate::common::render(&crate::common::changes(&yaml)));
}

/// S8 to S15: which directions are isolated, and which rules count.
#[test]
fn policy_types_are_defaulted_as_the_api_server_does() {
    check(
        "{podSelector: {}}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, egress: []}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, egress: [{}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        egress[0] Accept anyone on any port
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [], egress: [{}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        egress[0] Accept anyone on any port
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [egress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Ingress, Ingress]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Igress, Egress]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        ! spec.policyTypes[0]: `Igress` is neither Ingress nor Egress; both directions are isolated
    "#]],
    );
    check(
        "{podSelector: {}, policyTypes: [Igress]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        ! spec.policyTypes[0]: `Igress` is neither Ingress nor Egress; both directions are isolated
    "#]],
    );
}

/// S16 to S24: selectors, and nil against empty.
#[test]
fn selectors() {
    check(
        "{podSelector: {matchLabels: {app: db, tier: ''}, matchExpressions: [{key: env, operator: NotIn, values: [dev, test]}]}}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop (app in {"db"}, tier in {""}, env not in {"dev", "test"})
        "#]],
    );
    check(
        "{podSelector: {matchExpressions: [{key: a, operator: Exists}, {key: b, operator: DoesNotExist, values: []}]}}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop (a, !b)
        "#]],
    );
    check(
        "{ingress: [{from: [{podSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [ns shop ()] on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{namespaceSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [ns () ()] on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [ns (team in {"a"}) ()] on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{namespaceSelector: {}}, {podSelector: {matchLabels: {app: web}}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [ns () (); ns shop (app in {"web"})] on any port
    "#]],
    );
}

/// S30 to S34.
#[test]
fn nil_and_empty_lists() {
    check(
        "{ingress: []}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
    "#]],
    );
    check(
        "{ingress: [{}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on any port
    "#]],
    );
    check(
        "{ingress: [{from: [], ports: []}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on any port
    "#]],
    );
    check(
        "{ingress: [{from: null, ports: null}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0].from[0]: none of ipBlock, namespaceSelector, podSelector is set; this peer matches nothing
    "#]],
    );
    check(
        "{ingress: [null]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0]: invalid type: null, expected NetworkPolicyIngressRule; this rule matches nothing
    "#]],
    );
    check(
        "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        egress[0] Accept [nothing] on any port
        ! spec.egress[0].to[0]: ipBlock and selectors exclude each other; this peer matches nothing
    "#]],
    );
}

/// S35 to S42.
#[test]
fn ports() {
    check(
        "{ingress: [{ports: [{}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [TCP 0-65535]
    "#]],
    );
    check(
        "{ingress: [{ports: [{protocol: UDP}, {port: 80}, {protocol: SCTP, port: 5000, endPort: 6000}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [UDP 0-65535; TCP 80; SCTP 5000-6000]
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: http}, {protocol: UDP, port: dns}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [Some(TCP) "http"; Some(UDP) "dns"]
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: 80, endPort: 80}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [TCP 80]
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: 80, endPort: 79}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on []
        ! spec.ingress[0].ports[0].endPort: 79 is below port 80; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: 80}, {endPort: 79}, {port: http, endPort: 90}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [TCP 80]
        ! spec.ingress[0].ports[1].endPort: endPort needs a port; this entry matches nothing
        ! spec.ingress[0].ports[2].endPort: endPort cannot follow the name `http`; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: 0}, {port: 65536}, {port: -1}, {port: 1, endPort: 65536}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on []
        ! spec.ingress[0].ports[0].port: 0 is not between 1 and 65535; this entry matches nothing
        ! spec.ingress[0].ports[1].port: 65536 is not between 1 and 65535; this entry matches nothing
        ! spec.ingress[0].ports[2].port: -1 is not between 1 and 65535; this entry matches nothing
        ! spec.ingress[0].ports[3].endPort: 65536 is not between 1 and 65535; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{ports: [{protocol: tcp, port: 80}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on []
        ! spec.ingress[0].ports[0].protocol: `tcp` is none of TCP, UDP, SCTP; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: '80'}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [Some(TCP) "80"]
        ! spec.ingress[0].ports[0].port: "80" in quotes is the name of a port, not a number; no pod can have it
    "#]],
    );
    check(
        "{ingress: [{ports: [{port: 80.5}, {port: [80]}, 80]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on []
        ! spec.ingress[0].ports[0]: invalid type: floating point `80.5`, expected IntOrString; this entry matches nothing
        ! spec.ingress[0].ports[1]: invalid type: sequence, expected IntOrString; this entry matches nothing
        ! spec.ingress[0].ports[2]: invalid type: integer `80`, expected NetworkPolicyPort; this entry matches nothing
    "#]],
    );
}

/// S51 to S58.
#[test]
fn blocks() {
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [0.0.0.0/0; ::/0] on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.7/024, except: [10.0.0.129/25, 10.0.0.1/32]}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [10.0.0.0/24 except [10.0.0.1/32; 10.0.0.128/25]] on any port
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}, {podSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing; ns shop ()] on any port
        ! spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/33` is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32; this peer matches nothing
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0]}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0].from[0].ipBlock.except[0]: `10.1.0.0` is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32; this peer matches nothing
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['2001:db8::/32', 192.168.0.0/16]}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [10.0.0.0/8] on any port
        ! spec.ingress[0].from[0].ipBlock.except[0]: `2001:db8::/32` lies outside 10.0.0.0/8; it is ignored
        ! spec.ingress[0].from[0].ipBlock.except[1]: `192.168.0.0/16` lies outside 10.0.0.0/8; it is ignored
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0].from[0].ipBlock.except[0]: `10.0.0.0/8` covers all of 10.0.0.0/8; this peer matches nothing
    "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['::ffff:10.1.0.0/112']}}]}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ingress[0] Accept [10.0.0.0/8 except [10.1.0.0/16]] on any port
        "#]],
    );
    check(
        "{ingress: [{from: [{ipBlock: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0].from[0].ipBlock.cidr: `` is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32; this peer matches nothing
    "#]],
    );
}

/// S29: a selector that cannot be read does not open anything.
#[test]
fn bad_selectors_never_widen() {
    check(
        "{podSelector: {matchLabels: {app: db}, matchExpressions: [{key: a, operator: Near}]}, ingress: [{}], egress: [{}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress, egress] of ns shop (app in {"db"})
            ! spec.podSelector.matchExpressions[0]: operator `Near` is none of In, NotIn, Exists, DoesNotExist
            ! spec.podSelector: cannot be read in full; the pods it may mean are isolated, no rule applies
        "#]],
    );
    check(
        "{ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}, {podSelector: {matchLabels: {app: web}}}]}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ingress[0] Accept [nothing; ns shop (app in {"web"})] on any port
            ! spec.ingress[0].from[0].podSelector.matchExpressions[0]: operator NotIn needs values
            ! spec.ingress[0].from[0]: a selector cannot be read in full; this peer matches nothing
        "#]],
    );
    check(
        "{ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ingress[0] Accept [nothing] on any port
            ! spec.ingress[0].from[0].namespaceSelector.matchExpressions[0]: operator Exists takes no values
            ! spec.ingress[0].from[0]: a selector cannot be read in full; this peer matches nothing
        "#]],
    );
    check(
        "{ingress: [{from: [{podSelector: {matchLabels: {version: 1}}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ! spec.ingress[0].from[0]: invalid type: integer `1`, expected a string; this entry matches nothing
    "#]],
    );
}

/// A typed decoder would drop these; each may be what restricts.
#[test]
fn unknown_fields_never_widen() {
    check(
        "{ingress: [{from: [{podSelectr: {}}, {podSelector: {}, serviceAccounts: [a]}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing; nothing] on any port
        ! spec.ingress[0].from[0].podSelectr: this field is not known and may restrict; this entry matches nothing
        ! spec.ingress[0].from[1].serviceAccounts: this field is not known and may restrict; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{ports: [{prt: 80}, {port: 81}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept anyone on [TCP 81]
        ! spec.ingress[0].ports[0].prt: this field is not known and may restrict; this entry matches nothing
    "#]],
    );
    check(
        "{ingress: [{form: [{podSelector: {}}]}, {}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress] of ns shop ()
        ingress[0] Accept [nothing] on any port
        ingress[1] Accept anyone on any port
        ! spec.ingress[0].form: this field is not known and may restrict; this rule matches nothing
    "#]],
    );
    check(
        "{egress: [{from: [{podSelector: {}}]}]}",
        expect![[r#"
        NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
        egress[0] Accept [nothing] on any port
        ! spec.egress[0].from: this field is not known and may restrict; this rule matches nothing
    "#]],
    );
    check(
        "{podSelectr: {matchLabels: {app: db}}, ingress: [{}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
            ! spec.podSelectr: this field is not known and may restrict; the pods are isolated, no rule applies
        "#]],
    );
    check(
        "{podSelector: {matchLabel: {app: db}}, ingress: [{}]}",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ! spec.podSelector.matchLabel: this field is not known and may restrict; the pods are isolated, no rule applies
        "#]],
    );
}

/// What is outside the spec decides nothing: it is named and that is all.
#[test]
fn unknown_fields_elsewhere_are_named() {
    let yaml = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, nickname: x}, status: {}, \
                spec: {ingress: [{}]}}";
    expect![[r#"
        NetworkPolicy default/p isolates [ingress] of ns default ()
        ingress[0] Accept anyone on any port
        ! metadata.nickname: this field is not known; it has no effect
        ! status: this field is not known; it has no effect
    "#]]
    .assert_eq(&crate::common::render(&crate::common::changes(yaml)));
}

/// Where not even the frame can be read, it isolates.
#[test]
fn what_cannot_be_read_at_all_isolates() {
    check(
        "podSelector: all",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ! spec.podSelector: invalid type: string "all", expected LabelSelector; all pods of the namespace are isolated, no rule applies
        "#]],
    );
    check(
        "policyTypes: Ingress",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress, egress] of ns shop ()
            ! spec.policyTypes: invalid type: string "Ingress", expected a sequence; both directions are isolated
        "#]],
    );
    check(
        "ingress: all",
        expect![[r#"
            NetworkPolicy shop/p isolates [ingress] of ns shop ()
            ingress[0] Accept [nothing] on any port
            ! spec.ingress: is no list; no rule of this direction applies
        "#]],
    );
}

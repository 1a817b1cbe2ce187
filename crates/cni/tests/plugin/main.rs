//! The plugin as a runtime calls it: the real binary, and the agent's real services on a real socket.

mod rig;

use std::time::Duration;

use rig::{Agent, Call, PREVIOUS, SOON, answering, listed, nobody};
use serde_json::{Value, json};

/// The code of the error that was answered; its text has to name the remedy.
#[track_caller]
fn code(output: &rig::Output, word: &str) -> u64 {
    assert_eq!(output.status, 1, "{output:?}");
    let error: Value = serde_json::from_str(&output.stdout).expect("an error is JSON");
    let message = error["msg"].as_str().expect("it has a message");
    assert!(message.contains(word), "{word} is not in: {message}");
    assert_eq!(error["cniVersion"], "1.0.0", "the configuration's own");
    error["code"].as_u64().expect("a number")
}

#[track_caller]
fn passed_through(output: &rig::Output) {
    assert_eq!((output.status, output.stdout.trim_end()), (0, PREVIOUS), "{output:?}");
}

#[tokio::test]
async fn add_ends_when_the_pod_is_enforced_and_not_before() {
    let mut agent = Agent::start();
    let mut entry = agent.entry();
    entry["timeoutSeconds"] = json!(60);
    let added = tokio::spawn(Call::new("ADD", &entry).run());
    let announced = tokio::time::timeout(SOON, agent.announced.recv()).await.expect("in time").expect("open");
    assert_eq!(announced.pod.to_string(), "Pod shop/web-0");
    assert_eq!(announced.uid, "1234");
    assert_eq!(announced.interfaces, [(1, "lo".to_owned())]);
    assert_eq!(
        announced.addresses,
        ["10.0.0.2", "fd00::2"].map(|a| a.parse::<std::net::IpAddr>().expect("one"))
    );

    // Each of these is one thing short of enforced.
    let whole = rig::endpoint();
    let mut not_yet = vec![whole.clone(); 7];
    not_yet[0].attached = false;
    not_yet[1].live = false;
    not_yet[2].pod = None;
    not_yet[3].pod_uid = "of the pod before".to_owned();
    not_yet[4].addresses.pop();
    not_yet[5].ifindex = 2;
    not_yet[6].unconfirmed = "not heard of yet".to_owned();
    for endpoint in not_yet {
        agent.publisher.publish(listed(vec![endpoint.clone()]));
        assert_eq!(
            code(&Call::new("CHECK", &agent.entry()).run().await, "is not enforced"),
            100,
            "{endpoint:?}"
        );
        assert!(!added.is_finished(), "{endpoint:?}");
    }
    agent.publisher.publish(listed(vec![whole]));
    passed_through(&tokio::time::timeout(SOON, added).await.expect("in time").expect("no panic"));
}

/// Runtimes read answers in the version that their configuration is of.
#[tokio::test]
async fn every_version_is_answered_in_its_own() {
    let agent = Agent::start();
    agent.publisher.publish(answering());
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut entry = agent.entry();
        entry["cniVersion"] = json!(version);
        let ips = ["10.0.0.2/24", "fd00::2/64"].map(|address| json!({"version": "4", "address": address}));
        entry["prevResult"] = json!({"cniVersion": version, "ips": ips, "interfaces": [{"name": "lo"}]});
        let output = Call::new("ADD", &entry).run().await;
        let answer: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!((output.status, &answer), (0, &entry["prevResult"]), "{version}");

        entry["prevResult"] = json!({"cniVersion": version, "ips": []});
        let output = Call::new("ADD", &entry).run().await;
        let error: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!((&error["cniVersion"], &error["code"]), (&json!(version), &json!(7)), "{error}");
    }
}

#[tokio::test]
async fn what_is_missing_is_said_when_the_time_is_over() {
    let agent = Agent::start();
    let mut endpoint = rig::endpoint();
    endpoint.pod = None;
    agent.publisher.publish(listed(vec![endpoint]));
    let output = Call::new("ADD", &agent.entry()).run().await;
    assert_eq!(code(&output, "the API server has not told the agent of this pod"), 11);
    assert_eq!(code(&output, "shop/web-0"), 11);
}

#[tokio::test]
async fn without_an_agent_a_pod_does_not_start() {
    let folder = rig::folder();
    let entry = nobody(&folder);
    let output = Call::new("ADD", &entry).run().await;
    assert_eq!(code(&output, "is cellwall-agent running on this node?"), 11);
    assert_eq!(code(&output, "cellwall node cleanup"), 11);
    assert!(output.took >= Duration::from_secs(1), "it may be restarting: {:?}", output.took);
    assert!(output.took < SOON, "{:?}", output.took);
}

#[tokio::test]
async fn an_agent_that_hangs_holds_a_pod_up_for_no_longer() {
    let folder = rig::folder();
    let entry = nobody(&folder);
    let _listener =
        std::os::unix::net::UnixListener::bind(folder.path().join("agent.sock")).expect("a socket");
    let output = Call::new("ADD", &entry).run().await;
    assert_eq!(code(&output, "did not answer"), 11);
    assert!(output.took < SOON, "{:?}", output.took);
    assert_eq!(Call::new("DEL", &entry).run().await.status, 0);
}

#[tokio::test]
async fn an_agent_that_comes_back_meanwhile_is_asked() {
    let folder = rig::folder();
    let mut entry = nobody(&folder);
    entry["timeoutSeconds"] = json!(10);
    let added = tokio::spawn(Call::new("ADD", &entry).run());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!added.is_finished());
    let _agent = Agent::at(&folder, answering());
    passed_through(&tokio::time::timeout(SOON, added).await.expect("in time").expect("no panic"));
}

#[tokio::test]
async fn ignore_and_exempt_pods_start_all_the_same() {
    let folder = rig::folder();
    let mut entry = nobody(&folder);
    entry["failurePolicy"] = json!("Ignore");
    let output = Call::new("ADD", &entry).run().await;
    passed_through(&output);
    assert!(output.stderr.contains("starts all the same"), "{output:?}");

    let mut entry = nobody(&folder);
    entry["exemptNamespaces"] = json!(["kube-system", "shop"]);
    entry["timeoutSeconds"] = json!(60);
    let output = Call::new("ADD", &entry).run().await;
    passed_through(&output);
    assert!(output.took < SOON, "{:?}", output.took);
    assert_eq!(Call::new("CHECK", &entry).run().await.status, 0);
}

#[tokio::test]
async fn an_exempt_pod_is_announced() {
    let mut agent = Agent::start();
    let mut entry = agent.entry();
    entry["exemptNamespaces"] = json!(["shop"]);
    passed_through(&Call::new("ADD", &entry).run().await);
    assert_eq!(agent.announced.recv().await.expect("open").pod.name, "web-0");
}

/// The one thing that a leftover plugin must not do is to keep pods from starting; the one thing that a plugin in
/// service must not do is to take an agent that is away for an uninstall.
#[tokio::test]
async fn only_after_an_uninstall_everything_passes_without_an_agent() {
    let folder = rig::folder();
    let mut entry = nobody(&folder);
    let marker = folder.path().join("cellwall.installed");
    entry["installedFile"] = json!(marker);
    entry["timeoutSeconds"] = json!(60);
    for command in ["ADD", "CHECK"] {
        let output = Call::new(command, &entry).run().await;
        assert_eq!(output.status, 0, "{command}: {output:?}");
        assert!(output.took < SOON, "{command}: {:?}", output.took);
        assert!(output.stderr.contains("is not installed any more"), "{command}: {output:?}");
    }
    passed_through(&Call::new("ADD", &entry).run().await);

    entry["timeoutSeconds"] = json!(1);
    std::fs::write(&marker, "").expect("the folder is ours");
    for command in ["ADD", "CHECK"] {
        assert_eq!(code(&Call::new(command, &entry).run().await, "is cellwall-agent running"), 11);
    }
    std::fs::remove_file(&marker).expect("just made");
    let _agent = Agent::at(&folder, listed(Vec::new()));
    let output = Call::new("ADD", &entry).run().await;
    assert_eq!(code(&output, "has not seen its interface"), 11, "an agent that answers is installed");
}

#[tokio::test]
async fn check_says_how_it_is() {
    let agent = Agent::start();
    let check = || Call::new("CHECK", &agent.entry()).run();
    assert_eq!(code(&check().await, "has not seen its interface"), 100);
    agent.publisher.publish(answering());
    let output = check().await;
    assert_eq!((output.status, output.stdout.as_str()), (0, ""), "{output:?}");
}

/// An agent that is away must not make the node unready: it is away whenever it is upgraded.
#[tokio::test]
async fn status_is_about_the_plugin_and_not_about_the_agent() {
    let folder = rig::folder();
    let output = Call::new("STATUS", &nobody(&folder)).run().await;
    assert_eq!((output.status, output.stdout.as_str()), (0, ""), "{output:?}");
    let mut entry = nobody(&folder);
    entry["failurPolicy"] = json!("Ignore");
    assert_eq!(code(&Call::new("STATUS", &entry).run().await, "`failurPolicy`"), 2);
}

#[tokio::test]
async fn del_and_gc_always_succeed() {
    let folder = rig::folder();
    for command in ["DEL", "GC"] {
        for stdin in ["", "{", r#"{"cniVersion": "9"}"#, &nobody(&folder).to_string(), &"[".repeat(2 << 20)] {
            let mut call = Call::new(command, &Value::Null);
            call.stdin = stdin.to_owned();
            call.args = None;
            let output = call.run().await;
            assert_eq!((output.status, output.stdout.as_str()), (0, ""), "{output:?}");
            assert!(output.took < SOON, "{:?}", output.took);
        }
    }
}

#[tokio::test]
async fn version_lists_what_it_speaks() {
    let output = Call::new("VERSION", &json!({"cniVersion": "0.4.0"})).run().await;
    let answer: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    assert_eq!(answer, json!({"cniVersion": "0.4.0", "supportedVersions": versions}));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_the_specification() {
    let folder = rig::folder();
    let with = |key: &str, value: Value| {
        let mut entry = nobody(&folder);
        entry[key] = value;
        entry
    };
    for (entry, number, word) in [
        (with("prevResult", Value::Null), 7, "comes last in a list of plugins"),
        (with("prevResult", json!({"cniVersion": "1.0.0"})), 7, "no addresses"),
        (with("prevResult", json!({"ips": [{"address": "10.0.0"}]})), 7, "an address that is none"),
        (with("failurPolicy", json!("Ignore")), 2, "`failurPolicy`: \"Ignore\""),
        (with("timeoutSeconds", json!(-1)), 7, "1 to 60"),
    ] {
        for command in ["ADD", "CHECK"] {
            assert_eq!(code(&Call::new(command, &entry).run().await, word), number, "{command} {entry}");
        }
    }
    let mut call = Call::new("ADD", &nobody(&folder));
    call.args = Some("IgnoreUnknown=1");
    assert_eq!(code(&call.run().await, "K8S_POD_NAMESPACE"), 4);
    assert_eq!(code(&Call::new("PAINT", &nobody(&folder)).run().await, "known are ADD"), 4);

    let mut call = Call::new("ADD", &Value::Null);
    call.stdin = "{\"cniVersion\": ".to_owned();
    let output = call.run().await;
    let error: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!((&error["code"], &error["cniVersion"]), (&json!(6), &json!("1.1.0")), "{output:?}");
    let output = Call::new("ADD", &with("cniVersion", json!("0.2.0"))).run().await;
    let error: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!((&error["code"], &error["cniVersion"]), (&json!(1), &json!("0.2.0")), "{output:?}");
}

//! What a running agent answers over HTTP: that it lives, whether it is ready, and for what it is not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use cellwall_testkit::net::Namespace;

use crate::condition;
use crate::place::{OBJECTS, Place};
use crate::said::CONDITIONS;

/// Where an agent listens unless it is told otherwise; each of these tests has a network of its own.
const ADDRESS: &str = "127.0.0.1:9964";

/// Code and body of what the agent of a place answers.
pub(crate) fn get(place: &Place, path: &str) -> (u16, String) {
    let node = Namespace::open(format!("/run/netns/{}", place.name)).expect("the namespace is there");
    let mut answer = String::new();
    node.run(|| {
        let mut stream = TcpStream::connect(ADDRESS).expect("it listens");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it reads");
        stream.read_to_string(&mut answer).expect("it answers");
    });
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, body.to_owned())
}

/// Of each check, in their order, its sign and its name.
fn checks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(": ")?.0.split_once(' '))
}

fn names(text: &str) -> Vec<&str> {
    checks(text).map(|(_, name)| name).collect()
}

fn signs(text: &str) -> Vec<&str> {
    checks(text).map(|(sign, _)| sign).collect()
}

#[tokio::test]
async fn an_agent_lives_before_it_is_ready_and_names_each_check() {
    let Some(place) = Place::new() else { return };
    fs::remove_dir_all(place.manifests()).expect("it is ours");
    let agent = place.agent(&[]);
    let folder = place.manifests().display().to_string();
    place.status("without a list", |s| condition(s, "SourcesListed").contains(&folder)).await;
    assert_eq!(get(&place, "/livez"), (200, "ok\n".to_owned()));
    let (code, text) = get(&place, "/readyz");
    assert_eq!(code, 503, "{text}");
    assert!(text.contains("[-] SourcesListed: ") && text.contains(&folder), "{text}");
    assert!(text.ends_with("not ready\n") && !text.contains("[+]"), "{text}");
    let (code, text) = get(&place, "/readyz?verbose");
    assert_eq!((code, names(&text)), (503, CONDITIONS.to_vec()), "{text}");
    assert!(signs(&text).contains(&"[-]") && signs(&text).contains(&"[+]"), "{text}");

    fs::create_dir(place.manifests()).expect("it is ours");
    place.write("objects.yaml", OBJECTS);
    place.status("ready", |s| s.ready).await;
    assert_eq!(get(&place, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(&place, "/readyz"), (200, "ok\n".to_owned()));
    let (code, text) = get(&place, "/readyz?verbose");
    assert_eq!((code, names(&text)), (200, CONDITIONS.to_vec()), "{text}");
    assert!(signs(&text).iter().all(|sign| *sign == "[+]") && text.ends_with("\nok\n"), "{text}");
    for unknown in ["/", "/healthz", "/readyz/", "/debug/pprof", "/livez/../metrics"] {
        assert_eq!(get(&place, unknown).0, 404, "{unknown}");
    }
    agent.stop();
}

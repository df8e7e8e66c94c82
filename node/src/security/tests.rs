//! What the authority signs, and what it refuses to.

use super::authority::{Authority, AuthorityError, SiteRequest};
use super::identity::{Fingerprint, Identity, certificates};
use super::principal::Principal;
use super::tls::{ALPN_KAFKA, EarlyData, NothingRevoked, ServerTls, Trust, client_config};
use std::sync::Arc;

const NOW_MS: i64 = 1_790_000_000_000;

fn authority() -> Authority {
    Authority::create("lab", NOW_MS).unwrap()
}

#[test]
fn a_site_gets_the_name_the_core_gave_it_and_no_other() {
    let authority = authority();
    let request = SiteRequest::create("core").unwrap();
    let issued = authority
        .issue_site(&request.request_pem, "shop-7", NOW_MS)
        .unwrap();
    let identity = Identity::from_pem(&issued.chain_pem, &request.key_pem).unwrap();
    let facts = identity.facts().unwrap();
    assert_eq!(facts.san, ["headwater://site/shop-7"]);
    assert_eq!(facts.subject, "site shop-7");
    assert_eq!(facts.fingerprint, issued.fingerprint);
    assert_eq!(Principal::of(None, Some(&facts)).to_string(), "Site:shop-7");
    assert_eq!(certificates(&issued.chain_pem).unwrap().len(), 2);
}

#[test]
fn a_request_that_nobody_signed_is_refused() {
    let request = SiteRequest::create("shop").unwrap().request_pem;
    // One letter in the middle of the body: the signature does not hold any more.
    let middle = request.len() / 2;
    let other = if &request[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let forged = format!("{}{other}{}", &request[..middle], &request[middle + 1..]);
    for bad in [
        forged.as_str(),
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "no PEM at all",
    ] {
        assert!(
            matches!(
                authority().issue_site(bad, "shop", NOW_MS),
                Err(AuthorityError::Request(_))
            ),
            "{bad}"
        );
    }
    let huge = "A".repeat(1 << 20);
    assert!(matches!(
        authority().issue_site(&huge, "shop", NOW_MS),
        Err(AuthorityError::RequestTooLarge { size }) if size == 1 << 20
    ));
}

#[test]
fn a_node_serves_under_its_names_and_addresses() {
    let hosts = ["edge.example".to_owned(), "10.0.0.7".to_owned(), "::1".to_owned()];
    let facts = authority()
        .issue_node(3, &hosts, NOW_MS)
        .unwrap()
        .identity
        .facts()
        .unwrap();
    assert_eq!(
        facts.san,
        ["edge.example", "10.0.0.7", "::1", "headwater://node/3"]
    );
    assert_eq!(facts.node(), Some(3));
    assert_eq!(Principal::of(None, Some(&facts)), Principal::Node(3));
    assert!(facts.not_after_ms > NOW_MS);
    assert!(
        authority()
            .issue_node(3, &["no\u{e9}l".to_owned()], NOW_MS)
            .is_err()
    );
}

#[test]
fn an_authority_goes_on_after_it_was_read_back() {
    let first = authority();
    let again = Authority::from_pem(first.certificate_pem(), &first.key_pem()).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let facts = again
        .issue_node(1, &[], NOW_MS)
        .unwrap()
        .identity
        .facts()
        .unwrap();
    assert_eq!(facts.node(), Some(1));
}

#[test]
fn fingerprints_are_read_in_both_spellings() {
    let fingerprint = authority().fingerprint();
    let plain = fingerprint.to_string();
    let colons: Vec<String> = plain
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).to_uppercase())
        .collect();
    assert_eq!(Fingerprint::parse(&plain), Some(fingerprint));
    assert_eq!(Fingerprint::parse(&colons.join(":")), Some(fingerprint));
    assert_eq!(Fingerprint::parse(&plain[1..]), None);
    assert_eq!(Fingerprint::parse("zz"), None);
}

/// Whether a dialer with this trust believes a server that shows this identity.
fn is_believed(trust: &Trust, identity: Identity) -> bool {
    let server = ServerTls {
        identity,
        clients: super::tls::Clients::ANYBODY,
        revocations: Arc::new(NothingRevoked),
    };
    let server = Arc::new(server.for_tcp().unwrap());
    let client = Arc::new(client_config(trust, None, ALPN_KAFKA, EarlyData::Refuse).unwrap());
    let mut server = rustls::ServerConnection::new(server).unwrap();
    let mut client = rustls::ClientConnection::new(client, "core.example".try_into().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let mut up = up.as_slice();
        while !up.is_empty() {
            server.read_tls(&mut up).unwrap();
            server.process_new_packets().unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        let mut down = down.as_slice();
        while !down.is_empty() {
            client.read_tls(&mut down).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
    }
    true
}

#[test]
fn a_site_cannot_pass_for_the_core() {
    // The system's time: that is when certificates are checked.
    let now_ms = crate::sys::clock::Clock::system().unix_ms();
    let authority = Authority::create("lab", now_ms).unwrap();
    let hosts = ["core.example".to_owned()];
    let node = authority.issue_node(1, &hosts, now_ms).unwrap().identity;
    let request = SiteRequest::create("shop").unwrap();
    let issued = authority
        .issue_site(&request.request_pem, "shop", now_ms)
        .unwrap();
    let site = Identity::from_pem(&issued.chain_pem, &request.key_pem).unwrap();
    for trust in [
        Trust::Fingerprint(authority.fingerprint()),
        Trust::Authorities(vec![authority.certificate().clone()]),
    ] {
        assert!(is_believed(&trust, node.clone()), "{trust:?}");
        assert!(!is_believed(&trust, site.clone()), "{trust:?}");
    }
}

#[test]
fn nobody_is_anonymous_and_debug_keeps_the_key() {
    assert_eq!(Principal::of(None, None).to_string(), "User:ANONYMOUS");
    let node = authority().issue_node(1, &[], NOW_MS).unwrap().identity;
    assert!(!format!("{node:?}").contains("Pkcs8"));
}

mod files {
    use std::path::Path;

    use super::super::store::{Keys, StoreError, Subject, open};
    use super::NOW_MS;
    use crate::sys::Sys;
    use crate::sys::disk::Disk;

    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

    fn open_at(disk: &dyn Disk, hosts: &[&str], now_ms: i64) -> Result<Keys, StoreError> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        open(
            disk,
            Path::new("security"),
            &Subject {
                cluster: "lab",
                node: 1,
                hosts: &hosts,
            },
            now_ms,
        )
    }

    #[test]
    fn keys_stay_until_the_certificate_is_due() {
        let sys = Sys::simulated(1);
        let first = open_at(&*sys.disk, &["a.example"], NOW_MS).unwrap();
        let check = |hosts: &[&str], now_ms, same_node| {
            let again = open_at(&*sys.disk, hosts, now_ms).unwrap();
            assert_eq!(again.authority.fingerprint(), first.authority.fingerprint());
            assert_eq!(
                again.node.chain == first.node.chain,
                same_node,
                "{hosts:?} at {now_ms}"
            );
            let facts = again.node.facts().unwrap();
            assert!(facts.not_after_ms > now_ms + YEAR_MS);
            for host in hosts.iter().chain(&["localhost", "127.0.0.1", "::1"]) {
                assert!(facts.san.iter().any(|name| name == host), "{host}");
            }
        };
        check(&["a.example"], NOW_MS + YEAR_MS, true);
        check(&[], NOW_MS, true);
        check(&["b.example"], NOW_MS, false);
        check(&["b.example"], NOW_MS + 4 * YEAR_MS, false);
    }

    #[test]
    fn a_first_start_that_was_cut_short_begins_again() {
        let sys = Sys::simulated(2);
        let first = open_at(&*sys.disk, &[], NOW_MS).unwrap();
        sys.disk.remove_file(Path::new("security/authority.pem")).unwrap();
        let second = open_at(&*sys.disk, &[], NOW_MS).unwrap();
        assert_ne!(second.authority.fingerprint(), first.authority.fingerprint());
        assert_eq!(second.node.chain.last(), Some(second.authority.certificate()));
    }

    #[test]
    fn a_lost_key_is_not_replaced_in_silence() {
        let sys = Sys::simulated(3);
        open_at(&*sys.disk, &[], NOW_MS).unwrap();
        sys.disk.remove_file(Path::new("security/authority.key")).unwrap();
        assert!(matches!(
            open_at(&*sys.disk, &[], NOW_MS),
            Err(StoreError::KeyLost { .. })
        ));
    }
}

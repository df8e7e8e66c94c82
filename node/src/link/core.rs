//! The core's side of links: invites sites, signs their certificates, and receives their connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::TopicId;

use super::Shared;
use super::enrol::{self, Answer, Granted, KEY_LABEL, Request};
use super::session::{self, EndReason, Live};
use super::token::{Token, digest};
use crate::controller::{Change, ProposeError};
use crate::metadata::{Flow, Image, Link, LinkRole, Site, SiteState};
use crate::security::Authority;
use crate::security::authority::AuthorityError;
use crate::sys::task::Tasks;
use crate::transport::{CloseCode, Session};

/// How long an enrolment may take, from the first byte to the last.
const ENROLMENT: Duration = Duration::from_secs(20);
const SITE_NAME_BYTES_MAX: usize = 64;
const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a refused or superseded connection gets to say so before it is closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whom to invite, and what its link is to do.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub site: String,
    pub ttl: Duration,
    /// Where the site is to dial, as `host:port`; empty means this node's advertised QUIC address.
    pub core: Vec<String>,
    /// The link's name; the site's by default.
    pub link: Option<String>,
    pub flows: Vec<Flow>,
}

/// An invitation made.
#[derive(Debug, Clone)]
pub struct Invited {
    pub site: String,
    /// To be given to the site by a way that only it reads. It is nowhere stored.
    pub token: String,
    pub expires_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error(
        "a site's name has 1 to {SITE_NAME_BYTES_MAX} letters, digits, dots, dashes or underscores, not {name:?}"
    )]
    Name { name: String },
    #[error("a token lives between one minute and one year, not {} s", ttl.as_secs())]
    Ttl { ttl: Duration },
    #[error("site {name:?} is enrolled already: revoke it first")]
    Enrolled { name: String },
    #[error("topic pattern {pattern:?} can match no topic")]
    Pattern { pattern: String },
    #[error("this node has no QUIC address to dial: name one")]
    NoAddress,
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("no site {name:?} is known here")]
    Unknown { name: String },
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

pub(super) async fn invite(shared: &Shared, invitation: Invitation) -> Result<Invited, InviteError> {
    check(&invitation)?;
    let image = shared.view.image();
    let known = image.sites.get(&invitation.site);
    if known.is_some_and(|site| site.state == SiteState::Enrolled) {
        return Err(InviteError::Enrolled {
            name: invitation.site,
        });
    }
    let core = if invitation.core.is_empty() {
        let address = image
            .nodes
            .values()
            .map(|node| node.addresses.quic.clone())
            .find(|quic| !quic.is_empty());
        vec![address.ok_or(InviteError::NoAddress)?]
    } else {
        invitation.core
    };
    let now_ms = shared.sys.clock.unix_ms();
    // Bounded by TTL_MAX.
    let expires_ms = now_ms.saturating_add(invitation.ttl.as_millis() as i64);
    let token = Token {
        site: invitation.site.clone(),
        secret: shared.sys.random.secret(),
        core,
        authority: shared.authority.fingerprint(),
        expires_ms,
    };
    let site = Site {
        name: invitation.site.clone(),
        id: TopicId::from_random(shared.sys.random.secret()).to_string(),
        state: SiteState::Invited,
        token_digest: token.digest(),
        invited_ms: now_ms,
        expires_ms,
        enrolled_ms: None,
        cert_fingerprint: None,
        labels: BTreeMap::new(),
    };
    let link = Link {
        name: invitation.link.unwrap_or_else(|| invitation.site.clone()),
        site: invitation.site.clone(),
        role: LinkRole::Core,
        flows: invitation.flows,
        paused: false,
        revision: 0,
        created_ms: now_ms,
    };
    shared.controller.propose(Change::PutLink(link)).await?;
    shared.controller.propose(Change::PutSite(site)).await?;
    Ok(Invited {
        site: invitation.site,
        token: token.encode(),
        expires_ms,
    })
}

fn check(invitation: &Invitation) -> Result<(), InviteError> {
    let name = &invitation.site;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > SITE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(InviteError::Name { name: name.clone() });
    }
    if !(TTL_MIN..=TTL_MAX).contains(&invitation.ttl) {
        return Err(InviteError::Ttl { ttl: invitation.ttl });
    }
    let patterns = invitation.flows.iter().flat_map(|flow| &flow.topics);
    match patterns
        .into_iter()
        .find(|pattern| pattern.is_empty() || !pattern.bytes().all(|b| allowed(b) || b == b'*'))
    {
        Some(pattern) => Err(InviteError::Pattern {
            pattern: pattern.clone(),
        }),
        None => Ok(()),
    }
}

pub(super) async fn revoke(shared: &Shared, name: &str) -> Result<(), RevokeError> {
    let image = shared.view.image();
    let site = image.sites.get(name).ok_or_else(|| RevokeError::Unknown {
        name: name.to_owned(),
    })?;
    let revoked = Site {
        state: SiteState::Revoked,
        token_digest: String::new(),
        ..site.as_ref().clone()
    };
    shared.controller.propose(Change::PutSite(revoked)).await?;
    Ok(())
}

/// Ends the connections of sites that are no longer welcome.
pub(super) async fn keep_revocations(shared: Arc<Shared>) {
    let cancelled = shared.tasks.cancelled();
    let mut images = shared.view.watch();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let revoked = |site: &str| {
            image
                .sites
                .get(site)
                .is_none_or(|site| site.state == SiteState::Revoked)
        };
        for link in image
            .links
            .values()
            .filter(|link| link.role == LinkRole::Core && revoked(&link.site))
        {
            if let Some(scope) = shared.current(&link.name) {
                scope.cancel();
            }
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

/// Answers one request for a certificate.
pub(super) async fn accept_enrolment(shared: &Shared, session: Session) {
    let answered = shared
        .sys
        .clock
        .timeout(ENROLMENT, answer_enrolment(shared, &session))
        .await;
    match answered {
        Ok(Ok(site)) => tracing::info!(site, address = %session.peer().address, "site enrolled"),
        Ok(Err(reason)) => tracing::warn!(reason, address = %session.peer().address, "enrolment refused"),
        Err(_) => tracing::warn!(address = %session.peer().address, "enrolment took too long"),
    }
    // The site closes once it has read the answer; closing first could overtake it.
    let _ = shared.sys.clock.timeout(GOODBYE, session.closed()).await;
    session.close(CloseCode::Done, "enrolment is over");
}

async fn answer_enrolment(shared: &Shared, session: &Session) -> Result<String, String> {
    let mut stream = session.accept_stream().await.map_err(|e| e.to_string())?;
    let request: Request = enrol::receive(stream.reader).await.map_err(|e| e.to_string())?;
    let granted = grant(shared, &request).await;
    let (answer, outcome) = match granted {
        Ok(granted) => (Answer::Enrolled(granted), Ok(request.site)),
        Err(reason) => (Answer::Refused(reason.clone()), Err(reason)),
    };
    enrol::send(&mut stream.writer, &answer)
        .await
        .map_err(|e| e.to_string())?;
    outcome
}

async fn grant(shared: &Shared, request: &Request) -> Result<Granted, String> {
    // One at a time, so that two askers with the same token cannot both find it unused.
    let _one = shared.enrolling.lock().await;
    let image = shared.view.image();
    let now_ms = shared.sys.clock.unix_ms();
    let secret = hex::decode(&request.secret).unwrap_or_default();
    let key = Authority::request_key(&request.request_pem).map_err(|e: AuthorityError| e.to_string())?;
    let site = image.sites.get(&request.site).map(AsRef::as_ref);
    let repeat = site.is_some_and(|site| enrol::same_key(site, &key));
    enrol::admit(site, &digest(&secret), repeat, now_ms).map_err(|refusal| refusal.to_string())?;
    let site = site.ok_or_else(|| enrol::Refusal::Unknown.to_string())?;
    let link = link_of(&image, &site.name, request.link.as_deref())
        .ok_or_else(|| "the site's link was removed; ask for a new invitation".to_owned())?;
    let certificate = shared
        .authority
        .issue_site(&request.request_pem, &site.name, now_ms)
        .map_err(|e| e.to_string())?;
    let mut enrolled = site.clone();
    enrolled.state = SiteState::Enrolled;
    enrolled.enrolled_ms = Some(now_ms);
    enrolled.cert_fingerprint = Some(certificate.fingerprint.to_string());
    enrolled.labels.insert(KEY_LABEL.to_owned(), key.to_string());
    shared
        .controller
        .propose(Change::PutSite(enrolled))
        .await
        .map_err(|e| e.to_string())?;
    Ok(Granted {
        link: link.name.clone(),
        cluster_id: image.cluster_id.clone(),
        chain_pem: certificate.chain_pem,
        authority_pem: shared.authority.certificate_pem().to_owned(),
        flows: link.flows.clone(),
    })
}

/// The link that `site` means by `name`. At the edge a link may have a name of the edge's own: where the core knows no
/// such link of the site's, its oldest is meant.
pub(super) fn link_of<'a>(image: &'a Image, site: &str, name: Option<&str>) -> Option<&'a Link> {
    let links = || {
        let all = image.links.values().map(AsRef::as_ref);
        all.filter(|link| link.role == LinkRole::Core && link.site == site)
    };
    links()
        .find(|link| name == Some(&link.name))
        .or_else(|| links().min_by_key(|link| link.created_ms))
}

/// Serves a site's connection until it ends.
pub(super) async fn accept_site(shared: &Arc<Shared>, session: Session) {
    let site = session
        .peer()
        .certificate
        .as_ref()
        .and_then(|facts| facts.site().map(str::to_owned));
    let Some(site) = site else {
        session.close(CloseCode::Refused, "the certificate names no site");
        return;
    };
    let welcome = shared.view.image().sites.get(&site).is_some_and(|site| {
        let fingerprint = session
            .peer()
            .certificate
            .as_ref()
            .map(|facts| facts.fingerprint.to_string());
        site.state == SiteState::Enrolled && site.cert_fingerprint == fingerprint
    });
    if !welcome {
        session.close(CloseCode::Refused, "the site is not enrolled here any more");
        return;
    }
    match session::greet_edge(shared, &session, &site).await {
        Ok((sender, receiver, link, declaration)) => {
            let scope = shared.tasks.child(&format!("site-{site}"));
            supersede(shared, &link, &scope).await;
            let board = shared.board(&link);
            board.connected(session.clone(), shared.sys.clock.unix_ms());
            tracing::info!(link, site, address = %session.peer().address, "link is up");
            let live = Live {
                shared: Arc::clone(shared),
                board: Arc::clone(&board),
                session: session.clone(),
                scope,
                role: LinkRole::Core,
                link: link.clone(),
                site,
                receiver,
                sender,
                declaration,
            };
            let reason = live.run().await;
            board.disconnected(&session, &reason.to_string(), shared.sys.clock.unix_ms());
            tracing::info!(link, %reason, "link is down");
        }
        Err(reason) => {
            tracing::warn!(site, %reason, "link refused");
            if let EndReason::NotWelcome(_) = reason {
                // Gives the refusal the time to arrive.
                let _ = shared.sys.clock.timeout(GOODBYE, session.closed()).await;
            }
            session.close(CloseCode::Refused, &reason.to_string());
        }
    }
}

/// Ends the connection that the link had before: two would append to the same copies.
pub(super) async fn supersede(shared: &Shared, link: &str, scope: &Tasks) {
    if let Some(before) = shared.take_over(link, scope) {
        before.cancel();
        before.ended().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_may_call_its_link_what_it_likes() {
        let mut image = Image::default();
        let links = [
            ("harbour", "harbour", LinkRole::Core, 2),
            ("alarms", "harbour", LinkRole::Core, 3),
            ("mine", "mine", LinkRole::Core, 0),
            ("up", "harbour", LinkRole::Edge, 1),
        ];
        for (name, site, role, created_ms) in links {
            let link = Link {
                name: name.to_owned(),
                site: site.to_owned(),
                role,
                flows: Vec::new(),
                paused: false,
                revision: 0,
                created_ms,
            };
            Arc::make_mut(&mut image.links).insert(name.to_owned(), Arc::new(link));
        }
        let check = |site: &str, name: Option<&str>, expected: Option<&str>| {
            let found = link_of(&image, site, name).map(|link| link.name.as_str());
            assert_eq!(found, expected, "{name:?} of {site}");
        };
        check("harbour", None, Some("harbour"));
        check("harbour", Some("alarms"), Some("alarms"));
        check("harbour", Some("to-the-core"), Some("harbour"));
        check("harbour", Some("mine"), Some("harbour"));
        check("harbour", Some("up"), Some("harbour"));
        check("nobody", Some("harbour"), None);
    }
}

//! The edge's side of links: enrols, dials its core, keeps the connection up, and dials anew long before QUIC gives up.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Shared;
use super::board::Board;
use super::core::supersede;
use super::enrol::{self, Answer, Granted, Request};
use super::pulse::{Pulse, Reading, Verdict};
use super::session::{self, EndReason, Live};
use super::token::{Token, TokenError};
use crate::controller::{Change, ProposeError};
use crate::metadata::{Link, LinkRole, Upstream};
use crate::security::authority::{AuthorityError, SiteRequest};
use crate::security::identity::certificates;
use crate::security::store::StoreError;
use crate::security::tls::{ALPN_ENROL, ALPN_KAFKA, Trust};
use crate::security::{Fingerprint, Identity};
use crate::sys::task::{Kind, Tasks};
use crate::transport::dialer::Credentials;
use crate::transport::{CloseCode, DialError, Session};

/// How long one enrolment may take per address of the core.
const ENROLMENT: Duration = Duration::from_secs(20);
/// The first attempts follow each other this fast.
const REDIAL_MIN: Duration = Duration::from_millis(200);
/// How long one attempt may take: enough for a handshake over two satellite hops.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Attempts under way at once: a new one is begun before the last has failed, since its first packet may have been lost.
const ATTEMPTS_MAX: usize = 6;
/// How often the counters of a connection are looked at while something was going on, and while nothing was.
const LOOK_BUSY: Duration = Duration::from_millis(200);
const LOOK_IDLE: Duration = Duration::from_secs(1);

/// What enrolment gave.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub site: String,
    pub link: String,
    /// The address of the core that answered.
    pub core: String,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token expired; ask for a new one")]
    Expired,
    #[error("link {name:?} exists here already: give this one another name")]
    LinkExists { name: String },
    #[error("the core cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the core did not answer in time at {address}")]
    Timeout { address: String },
    #[error("the core refused: {reason}")]
    Refused { reason: String },
    #[error("the connection to the core broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the token names no address of the core")]
    NoAddress,
    #[error("the core granted what cannot be used: {0}")]
    Granted(String),
    #[error(transparent)]
    Key(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Enrols this node and links it.
pub(super) async fn enrol(shared: &Shared, token: &str, link: Option<&str>) -> Result<Enrolled, EnrolError> {
    let token = Token::decode(token)?;
    if shared.sys.clock.unix_ms() >= token.expires_ms {
        return Err(EnrolError::Expired);
    }
    let free = |name: &str| {
        if shared.view.image().links.contains_key(name) {
            return Err(EnrolError::LinkExists {
                name: name.to_owned(),
            });
        }
        Ok(())
    };
    // Before the token is spent.
    if let Some(link) = link {
        free(link)?;
    }
    let key_file = format!("site-{}.key", token.site);
    // A key made by an earlier attempt is used again, so that the core may repeat an answer that was lost.
    let request = match shared.store.read_key(&key_file).await? {
        Some(key_pem) => SiteRequest::from_key(&token.site, &key_pem)?,
        None => {
            let request = SiteRequest::create(&token.site)?;
            shared.store.write_key(&key_file, &request.key_pem).await?;
            request
        }
    };
    let (core, granted) = ask_any(shared, &token, &request, link).await?;
    Identity::from_pem(&granted.chain_pem, &request.key_pem)
        .map_err(|e| EnrolError::Granted(e.to_string()))?;
    let name = link.unwrap_or(&granted.link).to_owned();
    free(&name)?;
    let declared = Link {
        name: name.clone(),
        site: token.site.clone(),
        role: LinkRole::Edge,
        flows: granted.flows,
        paused: false,
        revision: 0,
        created_ms: shared.sys.clock.unix_ms(),
    };
    let upstream = Upstream {
        link: name.clone(),
        site: token.site.clone(),
        cluster_id: granted.cluster_id,
        core_quic: core.clone(),
        core_ca_pem: granted.authority_pem,
        certificate_pem: granted.chain_pem,
        key_file,
    };
    shared.controller.propose(Change::PutLink(declared)).await?;
    shared.controller.propose(Change::PutUpstream(upstream)).await?;
    Ok(Enrolled {
        site: token.site,
        link: name,
        core,
    })
}

/// Asks the addresses of the token in turn; the first that can be reached decides.
async fn ask_any(
    shared: &Shared,
    token: &Token,
    request: &SiteRequest,
    link: Option<&str>,
) -> Result<(String, Granted), EnrolError> {
    let credentials = Credentials {
        trust: Trust::Fingerprint(token.authority),
        identity: None,
        alpn: ALPN_ENROL,
    };
    let message = Request {
        site: token.site.clone(),
        secret: hex::encode(token.secret),
        request_pem: request.request_pem.clone(),
        link: link.map(str::to_owned),
    };
    let mut last = EnrolError::NoAddress;
    for address in &token.core {
        let asked = async {
            let session = shared.dialer.dial(address, &credentials).await?;
            let stream = session.open_stream().await.map_err(DialError::from)?;
            let answer = enrol::ask(stream, &message).await;
            session.close(CloseCode::Done, "enrolment is over");
            Ok::<_, EnrolError>(answer?)
        };
        match shared.sys.clock.timeout(ENROLMENT, asked).await {
            Ok(Ok(Answer::Enrolled(granted))) => return Ok((address.clone(), granted)),
            Ok(Ok(Answer::Refused(reason))) => return Err(EnrolError::Refused { reason }),
            Ok(Err(error)) => last = error,
            Err(_) => {
                last = EnrolError::Timeout {
                    address: address.clone(),
                }
            }
        }
    }
    Err(last)
}

/// Keeps one connection to each core that the metadata names.
pub(super) async fn keep_upstreams(shared: Arc<Shared>) {
    let cancelled = shared.tasks.cancelled();
    let mut images = shared.view.watch();
    let mut kept: BTreeMap<String, (Upstream, Tasks)> = BTreeMap::new();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        kept.retain(|link, (upstream, scope)| {
            let same = image.upstreams.get(link).is_some_and(|now| **now == *upstream);
            if !same {
                scope.cancel();
            }
            same
        });
        for (link, upstream) in image.upstreams.iter() {
            if kept.contains_key(link) {
                continue;
            }
            let scope = shared.tasks.child(&format!("core-{link}"));
            let keeper = Keeper {
                shared: Arc::clone(&shared),
                upstream: upstream.as_ref().clone(),
                scope: scope.clone(),
            };
            scope.spawn("keep", Kind::Critical, keeper.keep());
            kept.insert(link.clone(), (upstream.as_ref().clone(), scope));
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps the connection to one core.
struct Keeper {
    shared: Arc<Shared>,
    upstream: Upstream,
    scope: Tasks,
}

impl Keeper {
    async fn keep(self) {
        let cancelled = self.scope.cancelled();
        let work = self.keep_connected();
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            () = work => {}
        }
        if let Some(last) = self.shared.current(&self.upstream.link) {
            last.cancel();
            last.ended().await;
        }
    }

    async fn keep_connected(&self) {
        let board = self.shared.board(&self.upstream.link);
        let credentials = loop {
            match self.credentials().await {
                Ok(credentials) => break credentials,
                Err(reason) => {
                    tracing::error!(link = %self.upstream.link, reason, "the link's certificate cannot be used");
                    board.failed(&reason);
                    self.shared.sys.clock.sleep(ATTEMPT).await;
                }
            }
        };
        let mut running: Option<Running> = None;
        loop {
            let session = match running.take() {
                None => self.dial(&credentials, &board).await,
                Some(connection) => match self.watch(connection, &credentials, &board).await {
                    Some(session) => session,
                    None => continue,
                },
            };
            running = self.begin(session, &board).await;
        }
    }

    async fn credentials(&self) -> Result<Credentials, String> {
        let key = self
            .shared
            .store
            .read_key(&self.upstream.key_file)
            .await
            .map_err(|e| e.to_string())?;
        let key = key.ok_or_else(|| format!("its key {} is gone: enrol again", self.upstream.key_file))?;
        let identity = Identity::from_pem(&self.upstream.certificate_pem, &key).map_err(|e| e.to_string())?;
        let authority = certificates(&self.upstream.core_ca_pem).map_err(|e| e.to_string())?;
        let authority = authority
            .first()
            .map(Fingerprint::of)
            .ok_or("the core's authority is missing")?;
        // By its authority and not by its name: a core may be reached under many, through address translation too.
        Ok(Credentials {
            trust: Trust::Fingerprint(authority),
            identity: Some(identity),
            alpn: ALPN_KAFKA,
        })
    }

    /// Dials until the core answers: attempts follow each other and overlap, so that the way's return is noticed at
    /// once, however long it was gone.
    async fn dial(&self, credentials: &Credentials, board: &Board) -> Session {
        let clock = &self.shared.sys.clock;
        let mut attempts = FuturesUnordered::new();
        let mut pause = REDIAL_MIN;
        let mut next = clock.now();
        loop {
            tokio::select! {
                biased;
                Some(attempt) = attempts.next() => match attempt {
                    Ok(Ok(session)) => return session,
                    Ok(Err(error)) => { let error: DialError = error; board.failed(&error.to_string()) }
                    Err(_) => board.failed("the core does not answer"),
                },
                () = clock.sleep_until(next) => {
                    if attempts.len() < ATTEMPTS_MAX {
                        let dial = self.shared.dialer.dial(&self.upstream.core_quic, credentials);
                        attempts.push(clock.timeout(ATTEMPT, dial));
                    }
                    next = clock.now() + pause;
                    pause = (pause + pause / 4).min(self.shared.settings.redial_max);
                }
            }
        }
    }

    /// Greets the core, and begins to work over the connection.
    async fn begin(&self, session: Session, board: &Arc<Board>) -> Option<Running> {
        let shared = &self.shared;
        let link = &self.upstream.link;
        match session::greet_core(shared, &session, link).await {
            Ok((sender, receiver, declaration)) => {
                let scope = self.scope.child("connection");
                supersede(shared, link, &scope).await;
                shared.keep_declaration(link, &declaration).await;
                board.connected(session.clone(), shared.sys.clock.unix_ms());
                tracing::info!(link, core = %self.upstream.core_quic, "link is up");
                let live = Live {
                    shared: Arc::clone(shared),
                    board: Arc::clone(board),
                    session: session.clone(),
                    scope: scope.clone(),
                    role: LinkRole::Edge,
                    link: link.clone(),
                    site: self.upstream.site.clone(),
                    receiver,
                    sender,
                    declaration,
                };
                let ended = self.scope.spawn("live", Kind::BestEffort, live.run());
                Some(Running { session, ended })
            }
            Err(reason) => {
                board.failed(&reason.to_string());
                session.close(CloseCode::Done, "the greeting failed");
                tracing::warn!(link, %reason, "the core does not take the link");
                shared.sys.clock.sleep(retry_after(&reason)).await;
                None
            }
        }
    }

    /// Follows a connection. Answers a newer one that is to take its place, or nothing when it just ended.
    async fn watch(&self, mut running: Running, credentials: &Credentials, board: &Board) -> Option<Session> {
        let clock = &self.shared.sys.clock;
        loop {
            tokio::select! {
                biased;
                ended = &mut running.ended => {
                    let reason = ended.unwrap_or(EndReason::Stopped);
                    board.disconnected(&running.session, &reason.to_string(), clock.unix_ms());
                    tracing::info!(link = %self.upstream.link, %reason, "link is down");
                    return None;
                }
                () = self.suspect(&running.session, board) => {
                    tracing::info!(link = %self.upstream.link, "the core is silent: dialing anew beside the connection");
                }
            }
            // Both at once: whichever way answers first is taken.
            tokio::select! {
                biased;
                () = self.revived(&running.session) => {}
                session = self.dial(credentials, board) => {
                    board.disconnected(&running.session, &EndReason::Superseded.to_string(), clock.unix_ms());
                    return Some(session);
                }
            }
        }
    }

    /// Returns when something that had to be answered was not.
    async fn suspect(&self, session: &Session, board: &Board) {
        let clock = &self.shared.sys.clock;
        let began = clock.now();
        let mut pulse = Pulse::default();
        let mut before = Reading::default();
        loop {
            let reading = read(session);
            let now_ms = u64::try_from(clock.now().duration_since(began).as_millis()).unwrap_or(u64::MAX);
            board.look(clock.unix_ms());
            let verdict = pulse.read(reading, now_ms);
            if verdict == Verdict::Suspect {
                return;
            }
            let busy = verdict == Verdict::Waiting || reading != before;
            before = reading;
            clock.sleep(if busy { LOOK_BUSY } else { LOOK_IDLE }).await;
        }
    }

    /// Returns when anything is heard again.
    async fn revived(&self, session: &Session) {
        let heard = session.stats().frames_received;
        while session.stats().frames_received == heard {
            self.shared.sys.clock.sleep(LOOK_BUSY).await;
        }
    }
}

/// A connection at work.
struct Running {
    session: Session,
    ended: crate::sys::task::Task<EndReason>,
}

fn read(session: &Session) -> Reading {
    let stats = session.stats();
    Reading {
        frames_received: stats.frames_received,
        eliciting_sent: stats.eliciting_sent,
        rtt_ms: u64::try_from(stats.round_trip.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A core that says no is asked again, at leisure.
fn retry_after(reason: &EndReason) -> Duration {
    match reason {
        EndReason::Refused(_) | EndReason::NotWelcome(_) => ATTEMPT,
        EndReason::Stopped
        | EndReason::Superseded
        | EndReason::Session(_)
        | EndReason::Control(_)
        | EndReason::NoGreeting => REDIAL_MIN,
    }
}

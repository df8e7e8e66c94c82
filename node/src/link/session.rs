//! One connection of a link, from its first word to its end: what either side offers, wants, and has copied.
//!
//! The same code runs at both ends; only the greeting differs. It owns the control stream. Records travel beside it, on
//! streams that either side opens and that the node's ordinary request handlers serve. It never touches a log: sources
//! are served by the handlers, copies are kept by `copies`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use tokio::sync::{mpsc, oneshot, watch};

use super::board::{Board, FlowKey, Side};
use super::control::{self, ControlError, Copied, Message, Receiver, Sender};
use super::copies::Copies;
use super::core::link_of;
use super::mapping::{Offered, WantedCopy, offer, wanted};
use super::resume::SourceState;
use super::{Shared, marks};
use crate::metadata::{Flow, Image, LinkRole};
use crate::sys::task::{Kind, Tasks};
use crate::transport::{CloseCode, Session, SessionError};

/// How long the other end may take for its first word.
const GREETING: Duration = Duration::from_secs(10);
/// Progress is told at most this often: many small steps, one message.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Control messages waiting to be written. When it is full, progress waits for its next turn, the rest waits.
const OUTBOX: usize = 64;
/// Fetchers that may ask at once before the next one waits.
const QUESTIONS: usize = 256;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndReason {
    #[error("stopped")]
    Stopped,
    #[error("a newer connection took over")]
    Superseded,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the other end did not greet in time")]
    NoGreeting,
    #[error("refused by the other end: {0}")]
    Refused(String),
    #[error("{0}")]
    NotWelcome(String),
}

/// What a link is declared to do, as both ends agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) revision: i64,
    pub(super) flows: Vec<Flow>,
    pub(super) paused: bool,
}

/// Asks the source whether a copy can go on. Cheap to clone; every fetcher has one.
#[derive(Clone)]
pub(super) struct Verifier(mpsc::Sender<Question>);

struct Question {
    topic: String,
    partition: i32,
    copy_end: Offset,
    answer: oneshot::Sender<Option<SourceState>>,
}

impl Verifier {
    /// What the source says of the partition; nothing when it does not have it, or the connection is gone.
    pub(super) async fn ask(&self, topic: &str, partition: i32, copy_end: Offset) -> Option<SourceState> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            topic: topic.to_owned(),
            partition,
            copy_end,
            answer,
        };
        self.0.send(question).await.ok()?;
        answered.await.ok()?
    }
}

/// One live connection, after the greeting.
pub(super) struct Live {
    pub(super) shared: Arc<Shared>,
    pub(super) board: Arc<Board>,
    pub(super) session: Session,
    /// Everything that this connection spawned.
    pub(super) scope: Tasks,
    pub(super) role: LinkRole,
    pub(super) link: String,
    pub(super) site: String,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) declaration: Declaration,
}

/// What the loop keeps between two events.
struct State {
    outbox: mpsc::Sender<Message>,
    offered_to_us: Vec<Offered>,
    offered_by_us: Option<Vec<Offered>>,
    wanted: watch::Sender<Vec<WantedCopy>>,
    questions: BTreeMap<u64, oneshot::Sender<Option<SourceState>>>,
    next_question: u64,
    told: BTreeMap<FlowKey, Copied>,
}

impl Live {
    /// Runs until either end has had enough. Everything it spawned has ended when it returns.
    pub(super) async fn run(mut self) -> EndReason {
        let (outbox, letters) = mpsc::channel(OUTBOX);
        let (verifier, mut asked) = mpsc::channel(QUESTIONS);
        let (wanted, wants) = watch::channel(Vec::new());
        let copies = Copies {
            shared: Arc::clone(&self.shared),
            scope: self.scope.child("copies"),
            board: Arc::clone(&self.board),
            session: self.session.clone(),
            verifier: Verifier(verifier),
            link: self.link.clone(),
            site: self.site.clone(),
        };
        self.scope.spawn("copies", Kind::BestEffort, copies.run(wants));
        self.scope
            .spawn("write", Kind::BestEffort, write(self.sender, letters));
        self.scope.spawn(
            "serve",
            Kind::BestEffort,
            serve(Arc::clone(&self.shared), self.session.clone(), self.scope.clone()),
        );
        let mut live = Loop {
            shared: self.shared,
            board: Arc::clone(&self.board),
            role: self.role,
            link: self.link,
            declaration: self.declaration,
            state: State {
                outbox,
                offered_to_us: Vec::new(),
                offered_by_us: None,
                wanted,
                questions: BTreeMap::new(),
                next_question: 0,
                told: BTreeMap::new(),
            },
        };
        let reason = live
            .run(&self.session, &mut self.receiver, &mut asked, &self.scope)
            .await;
        self.session.close(CloseCode::Done, "the link's connection ends");
        // With the loop goes the outbox, and with that the writer, which the scope waits for.
        drop(live);
        self.scope.cancel();
        self.scope.ended().await;
        reason
    }
}

/// What can happen to a connection.
enum Event {
    Message(Result<Message, ControlError>),
    Image,
    Asked(Question),
    Progress,
    Ended(EndReason),
}

struct Loop {
    shared: Arc<Shared>,
    board: Arc<Board>,
    role: LinkRole,
    link: String,
    declaration: Declaration,
    state: State,
}

impl Loop {
    async fn run(
        &mut self,
        session: &Session,
        receiver: &mut Receiver,
        asked: &mut mpsc::Receiver<Question>,
        scope: &Tasks,
    ) -> EndReason {
        let cancelled = scope.cancelled();
        let mut images = self.shared.view.watch();
        let clock = self.shared.sys.clock.clone();
        let mut tell_at = None;
        images.mark_changed();
        loop {
            let event = tokio::select! {
                biased;
                () = cancelled.cancelled() => Event::Ended(EndReason::Stopped),
                reason = session.closed() => Event::Ended(reason.into()),
                message = receiver.next() => Event::Message(message),
                changed = images.changed() => match changed {
                    Ok(()) => Event::Image,
                    Err(_) => Event::Ended(EndReason::Stopped),
                },
                Some(question) = asked.recv() => Event::Asked(question),
                () = self.board.changed(), if tell_at.is_none() => {
                    tell_at = Some(clock.now() + PROGRESS_EVERY);
                    continue;
                }
                () = clock.sleep_until_some(tell_at), if tell_at.is_some() => {
                    tell_at = None;
                    Event::Progress
                }
            };
            // Looking must not count as having seen: a new image that comes together with another event would never
            // become an event of its own.
            let image = Arc::clone(&images.borrow());
            if let Err(reason) = self.handle(event, &image).await {
                return reason;
            }
        }
    }

    async fn handle(&mut self, event: Event, image: &Image) -> Result<(), EndReason> {
        match event {
            Event::Ended(reason) => Err(reason),
            Event::Message(message) => self.message(message?, image).await,
            Event::Image => self.image_changed(image).await,
            Event::Asked(question) => self.ask(question).await,
            Event::Progress => {
                self.tell_progress();
                Ok(())
            }
        }
    }

    async fn message(&mut self, message: Message, image: &Image) -> Result<(), EndReason> {
        match message {
            Message::Flows {
                revision,
                flows,
                paused,
                ..
            } if self.role == LinkRole::Edge => {
                self.declaration = Declaration {
                    revision,
                    flows,
                    paused,
                };
                self.shared.keep_declaration(&self.link, &self.declaration).await;
                self.want();
                self.offer(image).await
            }
            Message::Inventory { topics } => {
                self.state.offered_to_us = topics;
                self.want();
                Ok(())
            }
            Message::Verify {
                id,
                topic,
                partition,
                copy_end,
            } => {
                let state = self.source_state(image, &topic, partition, copy_end).await;
                self.send(Message::Verified { id, state }).await
            }
            Message::Verified { id, state } => {
                if let Some(answer) = self.state.questions.remove(&id) {
                    // The fetcher may have been stopped meanwhile.
                    let _ = answer.send(state);
                }
                Ok(())
            }
            Message::Progress { partitions } => {
                self.shared.note_copied(
                    &self.link,
                    &self.board,
                    self.role,
                    &self.declaration.flows,
                    partitions,
                );
                Ok(())
            }
            Message::Refused { reason } => Err(EndReason::Refused(reason)),
            Message::Hello { .. } | Message::Flows { .. } | Message::Unknown => Ok(()),
        }
    }

    /// The metadata changed: perhaps what this end offers, or what the link is declared to do.
    async fn image_changed(&mut self, image: &Image) -> Result<(), EndReason> {
        let Some(link) = image.links.get(&self.link) else {
            return Err(EndReason::NotWelcome("the link was removed".to_owned()));
        };
        if self.role == LinkRole::Core {
            let declared = Declaration {
                revision: link.revision,
                flows: link.flows.clone(),
                paused: link.paused,
            };
            if declared != self.declaration {
                self.declaration = declared;
                self.send(self.shared.flows_message(&self.declaration)).await?;
                self.want();
            }
        }
        self.offer(image).await
    }

    /// Tells the other end what this end offers, if that has changed.
    async fn offer(&mut self, image: &Image) -> Result<(), EndReason> {
        let topics = offer(self.role, &self.declaration.flows, image);
        if self.state.offered_by_us.as_ref() == Some(&topics) {
            return Ok(());
        }
        self.state.offered_by_us = Some(topics.clone());
        self.send(Message::Inventory { topics }).await
    }

    /// Tells `copies` what to hold.
    fn want(&mut self) {
        let paused = self.declaration.paused;
        let copies = if paused {
            Vec::new()
        } else {
            wanted(self.role, &self.declaration.flows, &self.state.offered_to_us)
        };
        self.state.wanted.send_if_modified(|current| {
            let changed = *current != copies;
            *current = copies;
            changed
        });
    }

    async fn ask(&mut self, question: Question) -> Result<(), EndReason> {
        // Those whose fetcher has gone are forgotten: the map is bounded by the fetchers that wait.
        self.state.questions.retain(|_, answer| !answer.is_closed());
        let id = self.state.next_question;
        self.state.next_question += 1;
        self.state.questions.insert(id, question.answer);
        let Question {
            topic,
            partition,
            copy_end,
            ..
        } = question;
        self.send(Message::Verify {
            id,
            topic,
            partition,
            copy_end,
        })
        .await
    }

    /// What this end says of one of its partitions; nothing when it does not send it.
    async fn source_state(
        &self,
        image: &Image,
        topic: &str,
        partition: i32,
        copy_end: Offset,
    ) -> Option<SourceState> {
        let found = image.topics.get(topic)?;
        super::mapping::sends(self.role, &self.declaration.flows, found)?;
        let here = self
            .shared
            .registry
            .get_by_id(found.id, PartitionIndex(partition))?;
        let watermarks = *here.watermarks().borrow();
        Some(SourceState {
            topic_id: found.id,
            start: watermarks.log_start,
            end: watermarks.high_watermark,
            at_copy_end: marks::before(&here, copy_end).await,
        })
    }

    fn tell_progress(&mut self) {
        let copies = self.state.wanted.borrow();
        let ours = |topic: &str| copies.iter().any(|copy| copy.source.name == topic);
        let mut partitions = self.board.copied();
        partitions.retain(|copied| ours(&copied.topic));
        drop(copies);
        let key = |copied: &Copied| FlowKey {
            side: Side::Received,
            topic: copied.topic.clone(),
            partition: copied.partition,
        };
        partitions.retain(|copied| self.state.told.get(&key(copied)) != Some(copied));
        if partitions.is_empty() {
            return;
        }
        let message = Message::Progress {
            partitions: partitions.clone(),
        };
        // A full outbox: what was not told differs still at the next change.
        if self.state.outbox.try_send(message).is_ok() {
            self.state
                .told
                .extend(partitions.into_iter().map(|copied| (key(&copied), copied)));
        }
    }

    async fn send(&self, message: Message) -> Result<(), EndReason> {
        self.state
            .outbox
            .send(message)
            .await
            .map_err(|_| EndReason::Control(ControlError::Ended))
    }
}

async fn write(mut sender: Sender, mut letters: mpsc::Receiver<Message>) {
    while let Some(message) = letters.recv().await {
        if sender.send(&message).await.is_err() {
            // The session is gone; its loop sees that by itself.
            return;
        }
    }
}

/// Has the streams served that the other end opens, until the connection ends, and they with it.
async fn serve(shared: Arc<Shared>, session: Session, scope: Tasks) {
    let cancelled = scope.cancelled();
    loop {
        let stream = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            stream = session.accept_stream() => stream,
        };
        let Ok(stream) = stream else { return };
        shared.streams.serve(stream, session.peer().clone());
    }
}

/// The edge's greeting: says who it is, learns what the link is to do.
pub(super) async fn greet_core(
    shared: &Shared,
    session: &Session,
    link: &str,
) -> Result<(Sender, Receiver, Declaration), EndReason> {
    let stream = session.open_stream().await?;
    let (mut sender, mut receiver) = (Sender::new(stream.writer), Receiver::new(stream.reader));
    let cluster_id = shared.view.image().cluster_id.clone();
    let hello = Message::Hello {
        version: control::VERSION,
        cluster_id,
        link: link.to_owned(),
    };
    sender.send(&hello).await.map_err(ControlError::Broken)?;
    let greeting = shared
        .sys
        .clock
        .timeout(GREETING, receiver.next())
        .await
        .map_err(|_| EndReason::NoGreeting)?;
    match greeting? {
        Message::Flows {
            revision,
            flows,
            paused,
            ..
        } => Ok((
            sender,
            receiver,
            Declaration {
                revision,
                flows,
                paused,
            },
        )),
        Message::Refused { reason } => Err(EndReason::Refused(reason)),
        other => Err(EndReason::NotWelcome(format!("the core greeted with {other:?}"))),
    }
}

/// The core's greeting: learns which link this is, says what it is to do.
pub(super) async fn greet_edge(
    shared: &Shared,
    session: &Session,
    site: &str,
) -> Result<(Sender, Receiver, String, Declaration), EndReason> {
    let first = async {
        let stream = session.accept_stream().await?;
        let (sender, mut receiver) = (Sender::new(stream.writer), Receiver::new(stream.reader));
        let hello = receiver.next().await?;
        Ok::<_, EndReason>((sender, receiver, hello))
    };
    let (mut sender, receiver, hello) = shared
        .sys
        .clock
        .timeout(GREETING, first)
        .await
        .map_err(|_| EndReason::NoGreeting)??;
    let Message::Hello {
        version, link: name, ..
    } = hello
    else {
        return Err(EndReason::NotWelcome("the site did not say hello".to_owned()));
    };
    let image = shared.view.image();
    let found = if version == control::VERSION {
        link_of(&image, site, Some(&name)).ok_or_else(|| format!("site {site:?} has no link here"))
    } else {
        Err(format!(
            "this core speaks version {} of the link",
            control::VERSION
        ))
    };
    let link = match found {
        Ok(link) => link,
        Err(reason) => {
            // Said as a courtesy; the connection ends whether it arrives or not.
            let _ = sender
                .send(&Message::Refused {
                    reason: reason.clone(),
                })
                .await;
            return Err(EndReason::NotWelcome(reason));
        }
    };
    let declaration = Declaration {
        revision: link.revision,
        flows: link.flows.clone(),
        paused: link.paused,
    };
    sender
        .send(&shared.flows_message(&declaration))
        .await
        .map_err(ControlError::Broken)?;
    Ok((sender, receiver, link.name.clone(), declaration))
}

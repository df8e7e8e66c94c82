//! Which letters were written back, as far as this node remembers: so that nobody does it twice by accident.
//! Pure. A letter is marked before it is written, and unmarked only where it certainly was not. When there are too many
//! marks the oldest go.

use std::collections::{BTreeMap, VecDeque};

use headwater_protocol::ids::TopicId;

use super::letter::Place;

/// A letter, wherever it lies.
pub(crate) type Letter = (TopicId, Place);

/// That a letter was written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The redrive that did it.
    pub redrive: String,
    pub at_ms: i64,
    /// Where in the source it lies now. None: it is on its way, or nobody acknowledged it, so that it may be there or not.
    pub to: Option<Place>,
}

/// Whether a letter that was written back may be so once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Refuse,
    Allow,
}

/// The marks of all dead-letter topics.
#[derive(Debug)]
pub(crate) struct Marks {
    marks: BTreeMap<Letter, Mark>,
    /// Oldest first; one that was marked again stands in it once.
    order: VecDeque<Letter>,
    max: usize,
}

impl Marks {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            marks: BTreeMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    pub(crate) fn get(&self, letter: Letter) -> Option<&Mark> {
        self.marks.get(&letter)
    }

    /// Marks a letter that is about to be written. Gives the mark it had; fails with it where that forbids another.
    pub(crate) fn claim(&mut self, letter: Letter, mark: Mark, again: Again) -> Result<Option<Mark>, Mark> {
        let before = self.marks.get(&letter).cloned();
        match (before, again) {
            (Some(mark), Again::Refuse) => Err(mark),
            (Some(before), Again::Allow) => {
                self.marks.insert(letter, mark);
                Ok(Some(before))
            }
            (None, _) => {
                self.make_room();
                self.marks.insert(letter, mark);
                self.order.push_back(letter);
                Ok(None)
            }
        }
    }

    /// It was written.
    pub(crate) fn settle(&mut self, letter: Letter, to: Place) {
        if let Some(mark) = self.marks.get_mut(&letter) {
            mark.to = Some(to);
        }
    }

    /// It certainly was not written: all is as before the claim.
    pub(crate) fn release(&mut self, letter: Letter, before: Option<Mark>) {
        match before {
            Some(before) => {
                self.marks.insert(letter, before);
            }
            None => {
                self.marks.remove(&letter);
                self.order.retain(|it| *it != letter);
            }
        }
    }

    fn make_room(&mut self) {
        while self.marks.len() >= self.max {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.marks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::{Offset, PartitionIndex};

    use super::*;

    fn place(offset: i64) -> Place {
        Place {
            partition: PartitionIndex(0),
            offset: Offset(offset),
        }
    }

    fn letter(offset: i64) -> Letter {
        (TopicId::NONE, place(offset))
    }

    fn mark(redrive: &str) -> Mark {
        Mark {
            redrive: redrive.to_owned(),
            at_ms: 1,
            to: None,
        }
    }

    #[test]
    fn a_letter_is_written_once_unless_a_person_insists() {
        let mut marks = Marks::new(10);
        assert_eq!(marks.claim(letter(1), mark("a"), Again::Refuse), Ok(None));
        marks.settle(letter(1), place(70));
        let done = Mark {
            to: Some(place(70)),
            ..mark("a")
        };
        assert_eq!(
            marks.claim(letter(1), mark("b"), Again::Refuse),
            Err(done.clone())
        );
        assert_eq!(
            marks.claim(letter(1), mark("b"), Again::Allow),
            Ok(Some(done.clone()))
        );
        assert_eq!(marks.get(letter(1)), Some(&mark("b")));
        marks.release(letter(1), Some(done.clone()));
        assert_eq!(marks.get(letter(1)), Some(&done));
    }

    #[test]
    fn what_certainly_was_not_written_can_be() {
        let mut marks = Marks::new(10);
        let before = marks.claim(letter(1), mark("a"), Again::Refuse).unwrap();
        marks.release(letter(1), before);
        assert_eq!(marks.get(letter(1)), None);
        assert_eq!(marks.claim(letter(1), mark("b"), Again::Refuse), Ok(None));
        assert_eq!(marks.order.len(), 1);
    }

    #[test]
    fn the_oldest_marks_go_when_there_are_too_many() {
        let mut marks = Marks::new(3);
        for offset in 0..5 {
            marks.claim(letter(offset), mark("a"), Again::Refuse).unwrap();
        }
        let kept: Vec<_> = (0..5).filter(|it| marks.get(letter(*it)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4]);
        assert_eq!(marks.order.len(), 3);
    }
}

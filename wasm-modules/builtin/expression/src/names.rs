//! Recognises the names in an object by where they stood in the one before it: records of a topic mostly have the
//! same members in the same order. It owns what is remembered, and its bounds. What is remembered never decides what
//! a name means: only a name that is written byte for byte like the remembered one is taken for it.

use headwater_guest::bytes::same;

use crate::json::{NotJson, member_name, skip_space};
use crate::text::Text;

/// Positions that are remembered, and the longest name.
const POSITIONS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;

/// The names that members of the last objects had, by position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    known: Vec<Known>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// From the opening quote to where the value starts, so with the colon.
    written: Vec<u8>,
    member: Option<usize>,
}

impl Names {
    /// Reads the name of the member at this position, whose quote stands at `at`: which member it is, as `find` says,
    /// and where its value starts.
    #[inline]
    pub(crate) fn read(
        &mut self,
        position: usize,
        json: &[u8],
        at: usize,
        find: impl Fn(Text<'_>) -> Option<usize>,
    ) -> Result<(Option<usize>, usize), NotJson> {
        if let Some(known) = self.known.get(position)
            && let Some(written) = json.get(at..at + known.written.len())
            && same(written, &known.written)
        {
            // There may be more space than there was.
            let value_at = skip_space(json, at + known.written.len());
            return Ok((known.member, value_at));
        }
        let (name, value_at) = member_name(json, at)?;
        let member = find(name);
        self.learn(position, &json[at..value_at], member);
        Ok((member, value_at))
    }

    #[cold]
    fn learn(&mut self, position: usize, written: &[u8], member: Option<usize>) {
        if position >= POSITIONS_MAX || written.len() > NAME_BYTES_MAX {
            return;
        }
        if position >= self.known.len() {
            self.known.resize(position + 1, Known::default());
        }
        let known = &mut self.known[position];
        known.written.clear();
        known.written.extend_from_slice(written);
        known.member = member;
    }
}

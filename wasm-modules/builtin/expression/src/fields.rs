//! Finds the fields that expressions ask for in one pass over a JSON value, and stops when it has them all.
//! It owns the tree of wanted paths and where in the value each was found. It allocates when a path is added, never
//! when a value is read.

use headwater_guest::{Error, Record};

use crate::json::{NotJson, expect_end, skip_and_look, skip_space, skip_value};
use crate::names::Names;
use crate::number::{Number, short_integer_in};
use crate::path::{Path, Step};
use crate::text::Text;
use crate::value::Value;

/// Which of the wanted fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The fields that are wanted of each value.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    root: Node,
    paths: Vec<Path>,
    /// How many nodes have members: each remembers the names of its own objects.
    objects: usize,
    found: Found,
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<Slot>,
    members: Vec<(Box<str>, Node)>,
    /// The number of this node among those with members.
    object: usize,
    elements: Vec<(usize, Node)>,
}

/// Where the fields of the last value stand in it. Reused from record to record.
#[derive(Clone, Debug, Default)]
struct Found {
    spans: Vec<Span>,
    missing: usize,
    names: Vec<Names>,
}

/// Where a field stands. An empty one is missing.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
    /// A string that has escapes.
    is_escaped: bool,
}

impl Fields {
    /// Wants one more field. The same path twice is the same slot.
    pub fn add(&mut self, path: &Path) -> Slot {
        let mut node = &mut self.root;
        for step in &path.steps {
            node = match step {
                Step::Member(name) => {
                    if node.members.is_empty() {
                        node.object = self.objects;
                        self.objects += 1;
                    }
                    child(&mut node.members, name)
                }
                Step::Element(index) => child(&mut node.elements, index),
            };
        }
        let next = Slot(self.paths.len());
        let slot = *node.slot.get_or_insert(next);
        if slot == next {
            self.paths.push(path.clone());
        }
        slot
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The path of a slot, for messages.
    #[must_use]
    pub fn path(&self, slot: Slot) -> &Path {
        &self.paths[slot.0]
    }

    /// Looks for the fields in the record's value. One without a value has none of them.
    ///
    /// # Errors
    /// When the value is not JSON, as far as it had to be read.
    #[inline]
    pub fn view<'a>(&'a mut self, record: &'a Record<'a>) -> Result<View<'a>, Error> {
        let value = record.value().unwrap_or_default();
        if !self.is_empty() {
            self.find(record.value())?;
        }
        Ok(View {
            record,
            value,
            fields: self,
        })
    }

    #[inline]
    fn find(&mut self, value: Option<&[u8]>) -> Result<(), NotJson> {
        self.found.begin(self.paths.len(), self.objects);
        let Some(value) = value else { return Ok(()) };
        let end = scan(&self.root, value, skip_space(value, 0), &mut self.found)?;
        if self.found.missing > 0 {
            expect_end(value, end)?;
        }
        Ok(())
    }
}

fn child<'n, K: PartialEq + Clone>(children: &'n mut Vec<(K, Node)>, key: &K) -> &'n mut Node {
    let position = children
        .iter()
        .position(|(known, _)| known == key)
        .unwrap_or_else(|| {
            children.push((key.clone(), Node::default()));
            children.len() - 1
        });
    &mut children[position].1
}

/// Reads the value at `at` as far as the node wants; answers where it ends, or any place once nothing is missing.
/// Recurses as deep as the longest path, not as deep as the value.
fn scan(node: &Node, json: &[u8], at: usize, found: &mut Found) -> Result<usize, NotJson> {
    let end = match json.get(at) {
        Some(b'{') if !node.members.is_empty() => scan_object(node, json, at + 1, found)?,
        Some(b'[') if !node.elements.is_empty() => scan_array(node, json, at + 1, found)?,
        _ => return leaf(node, json, at, found),
    };
    // While this node's own field is missing, the scan inside it cannot have ended early.
    found.note(node, at, end, false);
    Ok(end)
}

/// Passes a value that is wanted as a whole, if at all.
#[inline]
fn leaf(node: &Node, json: &[u8], at: usize, found: &mut Found) -> Result<usize, NotJson> {
    let (end, is_escaped) = skip_and_look(json, at)?;
    found.note(node, at, end, is_escaped);
    Ok(end)
}

fn scan_object(node: &Node, json: &[u8], at: usize, found: &mut Found) -> Result<usize, NotJson> {
    let mut at = skip_space(json, at);
    if json.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    for position in 0.. {
        let position_of = |name: Text<'_>| {
            let mut members = node.members.iter();
            members.position(|(member, _)| name.is(member.as_bytes()))
        };
        let (wanted, value_at) = found.names[node.object].read(position, json, at, position_of)?;
        at = match wanted.map(|wanted| &node.members[wanted].1) {
            Some(child) if child.is_leaf() => leaf(child, json, value_at, found)?,
            Some(child) => scan(child, json, value_at, found)?,
            None => skip_value(json, value_at)?,
        };
        if found.missing == 0 {
            return Ok(at);
        }
        at = skip_space(json, at);
        match json.get(at) {
            Some(b',') => at = skip_space(json, at + 1),
            Some(b'}') => return Ok(at + 1),
            _ => return Err(NotJson { at }),
        }
    }
    Ok(at)
}

fn scan_array(node: &Node, json: &[u8], at: usize, found: &mut Found) -> Result<usize, NotJson> {
    let mut at = skip_space(json, at);
    if json.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    for index in 0.. {
        at = match node.elements.iter().find(|(element, _)| *element == index) {
            Some((_, child)) => scan(child, json, at, found)?,
            None => skip_value(json, at)?,
        };
        if found.missing == 0 {
            break;
        }
        at = skip_space(json, at);
        match json.get(at) {
            Some(b',') => at = skip_space(json, at + 1),
            Some(b']') => return Ok(at + 1),
            _ => return Err(NotJson { at }),
        }
    }
    Ok(at)
}

impl Node {
    #[inline]
    fn is_leaf(&self) -> bool {
        self.members.is_empty() && self.elements.is_empty()
    }
}

impl Found {
    /// A value of these fields is about to be read.
    #[inline]
    fn begin(&mut self, fields: usize, objects: usize) {
        if self.spans.len() != fields || self.names.len() != objects {
            self.spans.resize(fields, Span::default());
            // A field that was added may have a name that is remembered as nobody's.
            self.names.clear();
            self.names.resize(objects, Names::default());
        }
        for span in &mut self.spans {
            *span = Span::default();
        }
        self.missing = fields;
    }

    #[inline]
    fn note(&mut self, node: &Node, start: usize, end: usize, is_escaped: bool) {
        if let Some(slot) = node.slot
            && self.spans[slot.0].end == 0
        {
            self.spans[slot.0] = Span {
                start,
                end,
                is_escaped,
            };
            self.missing -= 1;
        }
    }
}

/// A record with its wanted fields found.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub record: &'a Record<'a>,
    value: &'a [u8],
    fields: &'a Fields,
}

impl<'a> View<'a> {
    /// The field as it stands in the value; `None` where it is missing.
    #[inline]
    #[must_use]
    pub fn raw(&self, slot: Slot) -> Option<&'a [u8]> {
        let Span { start, end, .. } = self.fields.found.spans[slot.0];
        (end > start).then(|| &self.value[start..end])
    }

    #[inline]
    #[must_use]
    pub fn field(&self, slot: Slot) -> Value<'a> {
        match self.simple(slot) {
            Some(Simple::Text(text)) => Value::Text(Text::plain(text)),
            Some(Simple::Integer(integer)) => Value::Number(Number::Integer(integer)),
            None => self.rarer(slot),
        }
    }

    #[inline(never)]
    fn rarer(&self, slot: Slot) -> Value<'a> {
        self.raw(slot).map_or(Value::Null, Value::of_json)
    }

    /// The field as a plain string or as a short integer, if it is one: the commonest kinds, without a `Value`.
    #[inline]
    pub(crate) fn simple(&self, slot: Slot) -> Option<Simple<'a>> {
        let Span {
            start,
            end,
            is_escaped,
        } = self.fields.found.spans[slot.0];
        match self.value.get(start)? {
            b'"' if is_escaped || end < start + 2 => None,
            b'"' => Some(Simple::Text(&self.value[start + 1..end - 1])),
            b'-' | b'0'..=b'9' => short_integer_in(self.value, start, end).map(Simple::Integer),
            _ => None,
        }
    }

    /// Whether the value was read to its end, as it is when a field was missing: then all of it is JSON.
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.fields.found.missing > 0 && !self.value.is_empty()
    }

    /// The path of a slot, for messages.
    #[must_use]
    pub fn path(&self, slot: Slot) -> &'a Path {
        self.fields.path(slot)
    }
}

/// What most fields are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Simple<'a> {
    Text(&'a [u8]),
    Integer(i64),
}

//! Finds the fields that expressions ask for in one pass over a JSON value, and stops when it has them all.
//! It owns the tree of wanted paths and where in the value each was found. It allocates when a path is added, never
//! when a value is read.

use headwater_guest::{Error, Record};

use crate::json::{NotJson, expect_end, member_name, skip_space, skip_value};
use crate::path::{Path, Step};
use crate::value::Value;

/// Which of the wanted fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The fields that are wanted of each value.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    root: Node,
    paths: Vec<Path>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<Slot>,
    members: Vec<(Box<str>, Node)>,
    elements: Vec<(usize, Node)>,
}

/// Where the fields of the last value stand in it. Reused from record to record.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Start and end; an empty span is a field that is missing.
    spans: Vec<(usize, usize)>,
    missing: usize,
}

impl Fields {
    /// Wants one more field. The same path twice is the same slot.
    pub fn add(&mut self, path: &Path) -> Slot {
        let mut node = &mut self.root;
        for step in &path.steps {
            node = match step {
                Step::Member(name) => child(&mut node.members, name),
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
    pub fn view<'a>(&'a self, record: &'a Record<'a>, found: &'a mut Found) -> Result<View<'a>, Error> {
        let value = record.value().unwrap_or_default();
        found.spans.clear();
        found.spans.resize(self.paths.len(), (0, 0));
        found.missing = self.paths.len();
        if !self.is_empty() && record.value().is_some() {
            let end = scan(&self.root, value, skip_space(value, 0), found)?;
            if found.missing > 0 {
                expect_end(value, end)?;
            }
        }
        Ok(View {
            record,
            value,
            fields: self,
            found,
        })
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
        _ => skip_value(json, at)?,
    };
    // While this node's own field is missing, the scan inside it cannot have ended early.
    found.note(node, at, end);
    Ok(end)
}

fn scan_object(node: &Node, json: &[u8], at: usize, found: &mut Found) -> Result<usize, NotJson> {
    let mut at = skip_space(json, at);
    if json.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        let (name, value_at) = member_name(json, at)?;
        let wanted = node.members.iter().find(|(member, _)| name.is(member.as_bytes()));
        at = match wanted {
            Some((_, child)) => scan(child, json, value_at, found)?,
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

impl Found {
    #[inline]
    fn note(&mut self, node: &Node, start: usize, end: usize) {
        if let Some(slot) = node.slot
            && self.spans[slot.0] == (0, 0)
        {
            self.spans[slot.0] = (start, end);
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
    found: &'a Found,
}

impl<'a> View<'a> {
    /// The field as it stands in the value; `None` where it is missing.
    #[inline]
    #[must_use]
    pub fn raw(&self, slot: Slot) -> Option<&'a [u8]> {
        let (start, end) = self.found.spans[slot.0];
        (end > start).then(|| &self.value[start..end])
    }

    #[inline]
    #[must_use]
    pub fn field(&self, slot: Slot) -> Value<'a> {
        self.raw(slot).map_or(Value::Null, Value::of_json)
    }

    /// The path of a slot, for messages.
    #[must_use]
    pub fn path(&self, slot: Slot) -> &'a Path {
        self.fields.path(slot)
    }
}

//! Values of the types that serde knows.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: Option<u32>,
    kind: Kind,
    tags: Vec<(u8, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Guest,
    Member { since: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "User")]
struct Renamed {
    name: String,
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
struct Metres(f64);

#[derive(Serialize, Deserialize)]
struct List {
    next: Option<Box<List>>,
}

/// It has no length before it is written out, which postcard does not have.
struct Unsized;

impl Serialize for Unsized {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeSeq::end(serializer.serialize_seq(None)?)
    }
}

impl<'de> Deserialize<'de> for Unsized {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

fn user(rng: &mut Rng) -> User {
    User {
        name: rng.string(),
        age: (rng.below(2) == 0).then(|| rng.bits() as u32),
        kind: if rng.below(2) == 0 { Kind::Guest } else { Kind::Member { since: rng.bits() as u64 } },
        tags: (0..rng.below(3)).map(|_| (rng.next() as u8, rng.string())).collect(),
    }
}

#[test]
fn values_of_serde_come_back_and_bad_ones_are_refused() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let table = db.typed_table::<u64, Serde<User>>("users").unwrap();
    let mut rng = Rng(5);
    let users: Vec<User> = (0..200).map(|_| user(&mut rng)).collect();
    for (i, user) in (0..).zip(&users) {
        table.put(i, user).unwrap();
    }
    let found: Vec<User> = table.range(..).unwrap().map(|entry| entry.unwrap().1).collect();
    assert_eq!(found, users);
    for user in &users {
        let mut scratch = Vec::new();
        let bytes = Serde::<User>::encode(user, &mut scratch).unwrap().to_vec();
        assert!(Serde::<User>::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Serde::<User>::decode(&[&bytes[..], &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << rng.below(8);
            // Another user or an error; never a panic.
            drop(Serde::<User>::decode(&bad));
        }
    }
}

#[test]
fn types_of_serde_have_the_names_that_serde_has() {
    assert_eq!(Serde::<User>::type_name(), "postcard User {name, age, kind, tags}");
    assert_eq!(Serde::<Renamed>::type_name(), "postcard User {name, kind}");
    assert_eq!(Serde::<Kind>::type_name(), "postcard Kind");
    assert_eq!(Serde::<Metres>::type_name(), "postcard Metres(1)");
    assert_eq!(Serde::<List>::type_name(), "postcard List {next}");
    assert_eq!(Serde::<Option<User>>::type_name(), "postcard Option<User {name, age, kind, tags}>");
    assert_eq!(Serde::<Vec<u8>>::type_name(), "postcard sequence");
    assert_eq!(Serde::<BTreeMap<u8, u8>>::type_name(), "postcard map");
    assert_eq!(Serde::<(u8, u8)>::type_name(), "postcard (2)");
    assert_eq!(Serde::<String>::type_name(), "postcard str");
    assert_eq!(Serde::<std::net::Ipv4Addr>::type_name(), "postcard (4)");
    assert_eq!(Serde::<Unsized>::type_name(), "postcard");
    let db = open(&SimDisk::new(2));
    drop(db.typed_table::<u64, Serde<User>>("users").unwrap());
    assert!(matches!(db.typed_table::<u64, Serde<Renamed>>("users"), Err(Error::TypeMismatch { .. })));
}

#[test]
fn a_value_that_cannot_be_encoded_is_not_written() {
    let db = open(&SimDisk::new(3));
    let table = db.typed_table::<u8, Serde<Unsized>>("t").unwrap();
    assert!(matches!(table.put(1, &Unsized), Err(Error::Encode { table, .. }) if table == "t"));
    assert!(!table.contains(1).unwrap());
}

/// The README's program is the one that the documentation of the module compiles.
#[test]
fn the_readme_shows_the_program_of_the_documentation() {
    let readme = include_str!("../../../../README.md");
    let (_, section) = readme.split_once("\n## Typed tables\n").unwrap();
    let (_, program) = section.split_once("```rust,ignore\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let compiled: String = include_str!("../mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(compiled.contains(program), "the README's program is not that of the module typed");
}

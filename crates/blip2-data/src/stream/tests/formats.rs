//! Where captions stand, and what other programs write.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use super::*;
use crate::stream::testing::{png, tar};

#[test]
fn captions_come_from_text_from_a_field_and_from_a_list() {
    let data = Data::new(&[0]);
    let json = br#"{"caption": "1", "long": "2", "many": ["3", " ", "4"], "none": []}"#;
    let entries = [
        ("7.png", png(1)),
        ("7.txt", b" 0 ".to_vec()),
        ("7.json", json.to_vec()),
    ];
    fs::write(&data.shards[0], tar(entries.into_iter())).unwrap();
    let read = |field: Option<&str>| -> Result<Vec<String>, DataError> {
        let skips = SkipLog::new(OnError::Fail);
        let source = Source::shards("x", 1.0, &data.shards, field.map(String::from), &skips)?;
        let stream = Setting::default().stream(vec![source])?;
        let items: Vec<usize> = (0..10).collect();
        let samples = stream.batch(1, &items, &Device::default())?.samples;
        let mut texts: Vec<String> = samples
            .into_iter()
            .filter_map(|sample| sample.text)
            .collect();
        texts.sort();
        texts.dedup();
        Ok(texts)
    };
    assert_eq!(read(None).unwrap(), ["0"]);
    assert_eq!(read(Some("caption")).unwrap(), ["1"]);
    assert_eq!(read(Some("long")).unwrap(), ["2"]);
    assert_eq!(read(Some("many")).unwrap(), ["3", "4"], "drawn in turn");
    for wrong in ["none", "other"] {
        let error = read(Some(wrong)).unwrap_err().to_string();
        assert!(error.contains("x-0.tar: 7:"), "{error}");
    }
}

/// `tests/reference/shards.py` let WebDataset 0.2.111 read what Python's tarfile wrote in its three
/// forms and what img2dataset 1.47 wrote; here the same keys, image bytes and captions must come.
#[test]
fn reads_what_webdataset_reads_of_tarfile_and_img2dataset() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/reference/shards"
    ));
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Vec<HashMap<String, String>>> =
        serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 4);
    for (name, samples) in expected {
        let path = folder.join(format!("{name}.tar"));
        let shards = shards::list(vec![path], &SkipLog::new(OnError::Fail)).unwrap();
        let mut cursor = ShardCursor::new(Shards {
            name: name.clone(),
            source: 0,
            seed: 0,
            list: shards,
            json_only: false,
            files: Arc::default(),
            skips: SkipLog::new(OnError::Fail),
            count_file: CountFile::default(),
        })
        .unwrap();
        let places = cursor.take(0, samples.len() as u64 + 1).unwrap();
        assert_eq!(
            places[0].sample,
            places[samples.len()].sample,
            "{name}: then comes a new pass"
        );
        for (place, expected) in places.iter().zip(&samples) {
            assert_eq!(place.sample.key, expected["key"], "{name}");
            let files = OpenFiles::default();
            assert_eq!(
                place.captions(&files, None).unwrap(),
                [expected["caption"].trim()],
                "{name}"
            );
            let image = place.image(&files).unwrap();
            assert_eq!(image.len() as u64, place.sample.image.size);
            assert_eq!(
                format!("{:08x}", checksum(&image)),
                expected["image_crc32"],
                "{name}"
            );
        }
    }
}

/// CRC-32, as Python's zlib has it.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

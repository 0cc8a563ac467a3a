use super::*;

/// What `from_hugging_face` makes of a folder with these files.
fn read(files: &[(&str, &str)]) -> Result<Option<ImageProcessorConfig>, DataError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    ImageProcessorConfig::from_hugging_face(folder.path())
}

fn preprocessor(text: &str) -> ImageProcessorConfig {
    read(&[(PREPROCESSOR, text)]).unwrap().unwrap()
}

#[test]
fn what_is_left_out_is_as_in_blip_image_processor() {
    assert_eq!(read(&[]).unwrap(), None);
    let expected = ImageProcessorConfig {
        size: [384, 384],
        resample: Resample::Bicubic,
        image_mean: [0.481_454_66_f64, 0.457_827_5, 0.408_210_73].map(|mean| mean as f32),
        image_std: [0.268_629_54_f64, 0.261_302_58, 0.275_777_11].map(|std| std as f32),
    };
    assert_eq!(preprocessor("{}"), expected);
    expected.init().unwrap();
}

#[test]
fn old_files_are_read() {
    let config = preprocessor(
        r#"{"crop_size": {"height": 9, "width": 9}, "do_center_crop": false,
            "do_normalize": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2,
            "image_processor_type": "BlipImageProcessor", "processor_class": "Blip2Processor",
            "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 112}}"#,
    );
    let expected = ImageProcessorConfig {
        size: [224, 112],
        resample: Resample::Bilinear,
        image_mean: [0.1, 0.2, 0.3],
        image_std: [0.4, 0.5, 0.6],
    };
    assert_eq!(config, expected);
    assert_eq!(preprocessor(r#"{"size": 224}"#).size, [224, 224]);
    assert_eq!(preprocessor(r#"{"size": [224, 112]}"#).size, [224, 112]);
    let raw = preprocessor(r#"{"do_normalize": false, "image_mean": null, "image_std": 7}"#);
    assert_eq!((raw.image_mean, raw.image_std), ([0.0; 3], [1.0; 3]));
}

#[test]
fn nested_settings_win_and_a_file_without_them_is_passed_over() {
    let old = (PREPROCESSOR, r#"{"size": 100}"#);
    let nested = r#"{"image_processor": {"size": {"height": 30, "width": 40}}}"#;
    let config = read(&[old, (PROCESSOR, nested)]).unwrap().unwrap();
    assert_eq!(config.size, [30, 40]);
    let bare = r#"{"num_query_tokens": 32, "processor_class": "Blip2Processor"}"#;
    let config = read(&[old, (PROCESSOR, bare)]).unwrap().unwrap();
    assert_eq!(config.size, [100, 100]);
    assert_eq!(read(&[(PROCESSOR, bare)]).unwrap(), None);
}

#[test]
fn what_is_written_reads_back_in_both_forms() {
    let mut config = preprocessor(r#"{"size": {"height": 30, "width": 40}}"#);
    for resample in [Resample::Bilinear, Resample::Bicubic] {
        config.resample = resample;
        let written = config.to_hugging_face();
        // What `Blip2Processor.save_pretrained` writes, to the digit.
        assert_eq!(
            written["image_mean"].to_string(),
            "[0.48145466,0.4578275,0.40821073]"
        );
        assert_eq!(written["rescale_factor"].to_string(), "0.00392156862745098");
        assert_eq!(preprocessor(&written.to_string()), config);
        let nested = json!({ NESTED: written }).to_string();
        assert_eq!(read(&[(PROCESSOR, &nested)]).unwrap().unwrap(), config);
    }
}

#[test]
fn errors_name_the_file_and_the_field() {
    for (field, text) in [
        ("JSON", "{"),
        ("JSON", "[]"),
        ("size", r#"{"size": {"shortest_edge": 224}}"#),
        ("size", r#"{"size": {"height": 224}}"#),
        ("size", r#"{"size": 0}"#),
        ("size", r#"{"size": "large"}"#),
        ("size", r#"{"size": [1, 2, 3]}"#),
        ("resample", r#"{"resample": 1}"#),
        ("resample", r#"{"resample": null}"#),
        ("image_mean", r#"{"image_mean": [0.5, 0.5]}"#),
        ("image_mean", r#"{"image_mean": [0.5, 0.5, "x"]}"#),
        ("image_std", r#"{"image_std": [0.5, 0.0, 0.5]}"#),
        ("do_resize", r#"{"do_resize": false}"#),
        ("do_rescale", r#"{"do_rescale": null}"#),
        ("do_normalize", r#"{"do_normalize": "no"}"#),
        ("do_center_crop", r#"{"do_center_crop": true}"#),
        ("do_pad", r#"{"do_pad": true}"#),
        ("rescale_factor", r#"{"rescale_factor": 1.0}"#),
    ] {
        let error = read(&[(PREPROCESSOR, text)]).unwrap_err().to_string();
        let names = error.contains(PREPROCESSOR) && error.contains(&format!("`{field}`"));
        assert!(names, "{text}: {error}");
    }
    let nested = r#"{"image_processor": {"resample": 1}}"#;
    let error = read(&[(PROCESSOR, nested)]).unwrap_err().to_string();
    let names = error.contains(PROCESSOR) && error.contains("`image_processor.resample`");
    assert!(names && error.contains("not 1"), "{error}");
    let error = read(&[(PROCESSOR, r#"{"image_processor": 3}"#)]).unwrap_err();
    assert!(error.to_string().contains("`image_processor`"), "{error}");
}

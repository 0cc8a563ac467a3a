use std::time::Instant;
fn main() {
    let a: Vec<std::path::PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let t = Instant::now();
    let d = std::sync::Arc::new(blip2_eval::MeteorData::open(&a[2]).unwrap());
    println!("open {:?}", t.elapsed());
    let r = blip2_eval::read_references(&a[0], None).unwrap().captions;
    let c = blip2_eval::read_coco_results(&a[1]).unwrap();
    let s = blip2_eval::Scorer::new(&r).unwrap();
    let t = Instant::now();
    let s = s.with_meteor(d).unwrap();
    println!("with {:?}", t.elapsed());
    let t = Instant::now();
    s.score(&c, &[blip2_eval::Metric::Meteor]).unwrap();
    println!("score {:?}", t.elapsed());
}

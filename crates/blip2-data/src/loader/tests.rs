use super::*;

/// Yields the epoch and the items themselves; item 13 can't be read.
struct Numbers(usize);

impl BatchSource for Numbers {
    type Batch = (usize, Vec<usize>);

    fn num_items(&self) -> usize {
        self.0
    }

    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        _device: &Device,
    ) -> Result<Self::Batch, DataError> {
        if items.contains(&13) {
            return Err(DataError::EmptySplit {
                file: "thirteen".into(),
                split: "13".into(),
            });
        }
        Ok((epoch, items.to_vec()))
    }
}

fn loader(items: usize, num_workers: usize) -> PrefetchLoader<Numbers> {
    let options = LoaderOptions {
        batch_size: 3,
        num_workers,
        shuffle: Some(7),
        drop_last: false,
    };
    PrefetchLoader::new(Arc::new(Numbers(items)), options, &Device::default())
}

fn epoch(loader: &PrefetchLoader<Numbers>) -> Vec<(usize, Vec<usize>)> {
    loader.iter().map(Result::unwrap).collect()
}

#[test]
fn order_is_the_same_for_any_number_of_workers_and_differs_by_epoch() {
    let (none, four) = (loader(11, 0), loader(11, 4));
    let first = epoch(&none);
    assert_eq!(first, epoch(&four));
    let second = epoch(&none);
    assert_eq!(second, epoch(&four));
    assert_ne!(first[0].1, second[0].1);
    let mut all: Vec<usize> = first.into_iter().flat_map(|(_, items)| items).collect();
    all.sort_unstable();
    assert_eq!(all, (0..11).collect::<Vec<_>>());
}

#[test]
fn seek_continues_inside_an_epoch() {
    let whole = epoch(&loader(11, 2));
    let resumed = loader(11, 2);
    resumed.seek(Position { epoch: 1, batch: 2 });
    assert_eq!(epoch(&resumed), whole[2..]);
    assert_eq!(epoch(&resumed)[0].0, 2, "then comes the next epoch");
}

#[test]
fn an_unreadable_item_ends_the_epoch_with_its_error() {
    let mut results: Vec<_> = loader(14, 2).iter().collect();
    let error = results.pop().unwrap().unwrap_err();
    assert!(error.to_string().contains("thirteen"), "{error}");
    assert!(results.iter().all(Result::is_ok));
}

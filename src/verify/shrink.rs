//! The fewest of some things that still fail together.

/// Divides `all`, which fail, into a part that fails and none of which can be left out,
/// and the rest: delta debugging (Zeller and Hildebrandt, 2002).
pub(super) fn split<T: Clone>(all: Vec<T>, fails: impl Fn(&[T]) -> bool) -> (Vec<T>, Vec<T>) {
    let mut kept: Vec<usize> = (0..all.len()).collect();
    let items = |places: &[usize]| -> Vec<T> { places.iter().map(|at| all[*at].clone()).collect() };
    let mut length = kept.len().div_ceil(2);
    while length > 0 {
        let before = kept.len();
        let mut start = 0;
        while start < kept.len() {
            let end = (start + length).min(kept.len());
            let smaller = [&kept[..start], &kept[end..]].concat();
            match fails(&items(&smaller)) {
                true => kept = smaller,
                false => start = end,
            }
        }
        // One that could not go while others were there may when they are gone.
        length = match length {
            1 => usize::from(kept.len() < before),
            length => length.div_ceil(2),
        };
    }
    let rest: Vec<usize> = (0..all.len()).filter(|at| !kept.contains(at)).collect();
    (items(&kept), items(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_together_is_kept_and_no_more() {
        for (all, wanted) in [
            (vec![7], vec![7]),
            (vec![1, 2, 3, 7, 4], vec![7]),
            ((0..100).collect(), vec![7]),
        ] {
            let (kept, rest) = split(all.clone(), |part| part.contains(&7));
            assert_eq!(kept, wanted);
            assert_eq!(rest.len(), all.len() - 1);
        }
        let all: Vec<u32> = (0..50).collect();
        let (kept, _) = split(all, |part| [3, 20, 49].iter().all(|one| part.contains(one)));
        assert_eq!(kept, [3, 20, 49]);
        // Nothing at all may fail too.
        let (kept, rest) = split(vec![1, 2], |_| true);
        assert_eq!((kept, rest), (vec![], vec![1, 2]));
    }
}

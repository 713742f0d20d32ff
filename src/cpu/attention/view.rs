//! Where the heads of queries, keys, values and their gradients lie: usually side by side in one packed tensor.

use crate::cpu::Tiles;

/// The places of a (B, T, H, D) array in a slice. Element (b, t, h, d) is at `offset + b·strides[0] + t·strides[1] +
/// h·strides[2] + d`: a head's row of D numbers is contiguous, all else may be strided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// B, T, H, D: sequences, tokens, heads, numbers in a head.
    pub shape: [usize; 4],
    /// Where element (0, 0, 0, 0) is.
    pub offset: usize,
    /// Steps of b, t and h.
    pub strides: [usize; 3],
}

impl Layout {
    /// A contiguous (B, T, H, D) array.
    pub fn contiguous(shape: [usize; 4]) -> Layout {
        let [_, t, h, d] = shape;
        Layout { shape, offset: 0, strides: [t * h * d, h * d, d] }
    }

    /// Queries, keys and values in one (B, T, (H + 2 Hkv) D) array, the way one linear layer makes them: all query heads of
    /// a token, then its key heads, then its value heads.
    pub fn packed([batch, tokens]: [usize; 2], [heads, kv_heads]: [usize; 2], dim: usize) -> [Layout; 3] {
        let width = (heads + 2 * kv_heads) * dim;
        let part = |first: usize, heads| Layout {
            shape: [batch, tokens, heads, dim],
            offset: first * dim,
            strides: [tokens * width, width, dim],
        };
        [part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads)]
    }

    /// The length of the shortest slice that holds all elements.
    fn extent(&self) -> usize {
        let [b, t, h, d] = self.shape;
        if b * t * h * d == 0 {
            return 0;
        }
        self.offset + (b - 1) * self.strides[0] + (t - 1) * self.strides[1] + (h - 1) * self.strides[2] + d
    }

    /// Whether no two elements share a place: sorted by stride, each dimension steps over all that lie inside it.
    fn is_disjoint(&self) -> bool {
        let mut dims = [0, 1, 2].map(|i| (self.strides[i], self.shape[i]));
        dims.sort();
        let mut inside = self.shape[3];
        dims.iter().filter(|(_, n)| *n > 1).all(|&(stride, n)| {
            let fits = stride >= inside;
            inside += (n - 1) * stride;
            fits
        })
    }

    /// The index of row (b, t, h).
    #[inline(always)]
    fn at(&self, b: usize, t: usize, h: usize) -> usize {
        self.offset + b * self.strides[0] + t * self.strides[1] + h * self.strides[2]
    }
}

/// A (B, T, H, D) array to read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    layout: Layout,
}

impl<'a> View<'a> {
    /// The array that `layout` describes in `data`.
    ///
    /// # Panics
    /// `data` is too short.
    pub fn new(data: &'a [f32], layout: Layout) -> View<'a> {
        assert!(layout.extent() <= data.len(), "{layout:?} in a slice of {}", data.len());
        View { data, layout }
    }

    /// Queries, keys and values of one packed array; see [`Layout::packed`].
    pub fn packed(data: &'a [f32], sizes: [usize; 2], heads: [usize; 2], dim: usize) -> [View<'a>; 3] {
        Layout::packed(sizes, heads, dim).map(|layout| View::new(data, layout))
    }

    /// B, T, H, D.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape
    }

    /// The tokens `t..t + n` of head (b, h), one a row.
    #[inline(always)]
    pub(super) fn rows(&self, b: usize, t: usize, h: usize, n: usize) -> Rows<*const f32> {
        let [batch, tokens, heads, dim] = self.layout.shape;
        assert!(b < batch && t + n <= tokens && h < heads);
        Rows { ptr: self.data.as_ptr().wrapping_add(self.layout.at(b, t, h)), stride: self.layout.strides[1], n, dim }
    }
}

/// A (B, T, H, D) array to write, no two elements of which share a place; its rows are written by different threads.
pub struct ViewMut<'a> {
    data: Tiles<'a>,
    layout: Layout,
}

impl<'a> ViewMut<'a> {
    /// The array that `layout` describes in `data`.
    ///
    /// # Panics
    /// `data` is too short, or elements of the layout overlap.
    pub fn new(data: &'a mut [f32], layout: Layout) -> ViewMut<'a> {
        assert!(layout.extent() <= data.len(), "{layout:?} in a slice of {}", data.len());
        assert!(layout.is_disjoint(), "{layout:?} overlaps itself");
        ViewMut { data: Tiles::new(data), layout }
    }

    /// The gradients of queries, keys and values in one packed array; see [`Layout::packed`].
    ///
    /// # Panics
    /// `data` is too short.
    pub fn packed(data: &'a mut [f32], sizes: [usize; 2], heads: [usize; 2], dim: usize) -> [ViewMut<'a>; 3] {
        let layouts = Layout::packed(sizes, heads, dim);
        assert!(layouts.iter().all(|layout| layout.extent() <= data.len()), "{layouts:?} in a slice of {}", data.len());
        // The three parts share no element: each token's row is cut in three.
        let data = Tiles::new(data);
        layouts.map(|layout| ViewMut { data, layout })
    }

    /// B, T, H, D.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape
    }

    /// The tokens `t..t + n` of head (b, h), one a row. Writing to them is the user's unsafe act.
    #[inline(always)]
    pub(super) fn rows(&self, b: usize, t: usize, h: usize, n: usize) -> Rows<*mut f32> {
        let [batch, tokens, heads, dim] = self.layout.shape;
        assert!(b < batch && t + n <= tokens && h < heads);
        Rows { ptr: self.data.ptr(self.layout.at(b, t, h)), stride: self.layout.strides[1], n, dim }
    }
}

/// `n` rows of `dim` numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<P> {
    pub ptr: P,
    pub stride: usize,
    pub n: usize,
    pub dim: usize,
}

impl Rows<*const f32> {
    /// `n` of the rows, from `first` on.
    #[inline(always)]
    pub fn part(self, first: usize, n: usize) -> Rows<*const f32> {
        assert!(first + n <= self.n);
        Rows { ptr: self.ptr.wrapping_add(first * self.stride), n, ..self }
    }
}

impl Rows<*mut f32> {
    /// The same rows, to read.
    #[inline(always)]
    pub fn read(self) -> Rows<*const f32> {
        Rows { ptr: self.ptr, stride: self.stride, n: self.n, dim: self.dim }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_parts_are_disjoint_and_cover_the_whole() {
        let (sizes, heads, dim) = ([2, 3], [4, 2], 5);
        let mut hits = vec![0; 2 * 3 * (4 + 2 + 2) * 5];
        for layout in Layout::packed(sizes, heads, dim) {
            let [b, t, h, d] = layout.shape;
            for i in 0..b * t * h * d {
                hits[layout.at(i / d / h / t, i / d / h % t, i / d % h) + i % d] += 1;
            }
        }
        assert!(hits.iter().all(|&n| n == 1));
    }

    #[test]
    fn overlap_is_seen() {
        let layout = |strides| Layout { shape: [2, 3, 4, 5], offset: 0, strides };
        assert!(layout([60, 20, 5]).is_disjoint());
        assert!(layout([60, 5, 15]).is_disjoint());
        assert!(!layout([60, 19, 5]).is_disjoint());
        assert!(!layout([59, 20, 5]).is_disjoint());
        assert!(!layout([60, 20, 4]).is_disjoint());
        assert!(Layout { shape: [1, 3, 1, 5], offset: 0, strides: [0, 5, 0] }.is_disjoint());
    }

    #[test]
    #[should_panic(expected = "in a slice of 119")]
    fn a_short_slice_is_refused() {
        View::new(&[0.0; 119], Layout::contiguous([2, 3, 4, 5]));
    }
}

//! Convolutions and transposed convolutions of pictures (N, H, W, C).

use super::{Builder, Spectral, Start};
use crate::ops::activation::Activation;
use crate::ops::conv::Window;
use crate::params::{Kind, ParamId};
use crate::tape::Var;

/// `y = f(conv(x, W) + b)`, transposed or not as its [`Window`] says. Parameters: `NAME.weight` (out, kh, kw, in), of a
/// transposed convolution (in, kh, kw, out); `NAME.bias` (out); those of [`Spectral`] where it is one.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    window: Window,
    weight: ParamId,
    bias: Option<ParamId>,
    spectral: Option<Spectral>,
}

impl Conv {
    /// A layer from `inner` to `out` channels with a kernel of `kernel` rows and columns.
    pub fn new(
        p: &mut Builder,
        name: &str,
        window: Window,
        [inner, out]: [usize; 2],
        kernel: usize,
        bias: bool,
        start: Start,
    ) -> Conv {
        let [first, last] = if window.transposed { [inner, out] } else { [out, inner] };
        let [w, b] = start.of(kernel * kernel * last);
        let weight = p.param(format!("{name}.weight"), [first, kernel, kernel, last], Kind::Matrix, w);
        let bias = bias.then(|| p.param(format!("{name}.bias"), [out], Kind::Vector, b));
        Conv { window, weight, bias, spectral: None }
    }

    /// The same with its weights divided by their spectral norm.
    pub fn spectral(self, p: &mut Builder) -> Conv {
        Conv { spectral: Some(Spectral::new(p, self.weight, self.window.transposed)), ..self }
    }

    /// x (N, H, W, in) to f of (N, H', W', out).
    pub fn apply<'t>(&self, x: Var<'t>, f: Option<Activation>) -> Var<'t> {
        let tape = x.tape();
        let w = Spectral::weight(tape, self.weight, self.spectral);
        x.conv(self.window, w, self.bias.map(|b| tape.param(b)), f)
    }
}

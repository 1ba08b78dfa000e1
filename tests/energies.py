"""Energies of many shapes that the tests of the compiler and of the machine share."""

import math

import numpy as np
import torch
from torch import nn

INPUTS, OUTPUTS, STEPS = 3, 2, 5


class Model(nn.Module):
    """``kinds`` of parameters with a fixed seed; the readout is linear in all states."""

    inputs, outputs = INPUTS, OUTPUTS
    shapes: dict[str, tuple[int, ...]] = {}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name, shape in self.shapes.items():
            vector = len(shape) == 1
            setattr(self, name, nn.Parameter(torch.rand(shape) + 0.5 if vector else torch.randn(shape) * 0.4))
        for state, units in self.states.items():
            setattr(self, f"C_{state}", nn.Parameter(torch.randn(OUTPUTS, math.prod(np.atleast_1d(units))) * 0.4))

    def predict(self, *states):
        return sum(getattr(self, f"C_{name}") @ q.flatten() for name, q in zip(self.states, states, strict=True))

    def cost(self, *arguments):
        return nn.functional.mse_loss(self.predict(*arguments[:-1]), arguments[-1])


def log_cosh(z):
    return torch.log(torch.cosh(z)).sum()


class Blocks(Model):
    """Two states of different sizes in one coupling, one of them with a learned stiffness."""

    states = {"s": 6, "r": 4}
    shapes = {"W": (5, 6), "V": (5, 4), "B": (5, INPUTS), "b": (5,), "k": (6,)}

    def energy(self, s, r, u):
        local = 0.5 * (self.k * s**2).sum() + 0.4 * (r**2).sum()
        return local + log_cosh(self.W @ s + self.V @ r + self.B @ u + self.b)


class Deep(Model):
    """Three matrices in a row, a learned gain before the first."""

    states = {"q": 5}
    shapes = {"W1": (6, 5), "W2": (5, 6), "W3": (4, 5), "B": (6, INPUTS), "g": (5,)}

    def energy(self, q, u):
        first = torch.tanh(self.W1 @ (self.g * q) + self.B @ u)
        return 0.5 * (q @ q) + log_cosh(self.W3 @ torch.tanh(self.W2 @ first))


class Hopfield(Model):
    """Bilinear in functions of two layers, inputs as a direct drive."""

    states = {"s": 6, "r": 4}
    shapes = {"W": (6, 4), "B": (6, INPUTS)}

    def energy(self, s, r, u):
        return 0.5 * (s @ s + r @ r) - torch.tanh(s) @ self.W @ torch.tanh(r) + s @ (self.B @ u)


class Ring(Model):
    """Phase oscillators on a ring with a learned strength per edge."""

    states = {"q": 7}
    shapes = {"e": (7,), "B": (7, INPUTS)}

    def energy(self, q, u):
        edges = 1 - torch.cos(q - torch.roll(q, -1))
        return 0.2 * (q @ q) + (self.e * edges).sum() + q @ (self.B @ u)


class Tied(Model):
    """One matrix, used forwards by one state and transposed by the other."""

    states = {"s": 6, "r": 5}
    shapes = {"W": (5, 6), "B": (5, INPUTS), "D": (5, INPUTS)}

    def energy(self, s, r, u):
        return 0.5 * (s @ s + r @ r) + log_cosh(self.W @ s + self.B @ u) + log_cosh(self.W.T @ r) + r @ (self.D @ u)


class Products(Model):
    """Products of vectors of both states and of rows, a learned gain on the rows' potential."""

    states = {"s": 6, "r": 6}
    shapes = {"W": (6, 6), "g": (6,), "B": (6, INPUTS)}

    def energy(self, s, r, u):
        z = self.W @ s + self.B @ u
        local = 0.5 * (s @ s) + 0.6 * (r @ r)
        return local + (self.g * torch.log(torch.cosh(z))).sum() + 0.2 * (torch.tanh(s) * z * r).sum()


class Quadratic(Model):
    """q'Wq, which moves by W + W'."""

    states = {"q": 5}
    shapes = {"W": (5, 5), "B": (5, INPUTS)}

    def energy(self, q, u):
        return (q @ q) + 0.3 * (q @ (self.W @ q)) + q @ (self.B @ u)


class Symmetric(Model):
    """The symmetric part of one matrix inside rows' functions, beside a drive: two sums and a third vector."""

    states = {"q": 5}
    shapes = {"A": (5, 5), "B": (5, INPUTS)}

    def energy(self, q, u):
        return 0.6 * (q @ q) + log_cosh((self.A + self.A.T) / 2 @ q + self.B @ u)


class Springs(Model):
    """Masses on a line: slices, and no matrix at all but for the inputs."""

    states = {"q": 8}
    shapes = {"B": (8, INPUTS), "k": (8,)}

    def energy(self, q, u):
        stretch = q[1:] - q[:-1]
        return 0.5 * (self.k * q**2).sum() + 0.25 * (stretch**2).sum() + 0.1 * (stretch**4).sum() + q @ (self.B @ u)


class Joined(Model):
    """One learned matrix over the state and the inputs together, another one in two parts."""

    states = {"s": 5, "r": 4}
    shapes = {"W": (6, 5 + INPUTS), "V": (7, 4)}

    def energy(self, s, r, u):
        z, v = torch.cat([s, u]) @ self.W.T, torch.sin(self.V[3:] @ r)
        return 0.6 * (s @ s + r @ r) + log_cosh(z) + log_cosh(self.V[:3] @ r + z[:3]) + v @ z[:4]


class Inputs(Model):
    """The inputs themselves, and a function of them, in the energy; parameters named as the compiler names vectors."""

    states = {"q": INPUTS}
    shapes = {"m0": (INPUTS, INPUTS), "x0": (INPUTS,)}

    def energy(self, q, u):
        return 0.5 * (self.x0 * q**2).sum() + q @ u + log_cosh(self.m0 @ q + torch.tanh(u))


class Shared(Model):
    """One unit that all others see, a learned gain inside and outside of rows' functions."""

    states = {"c": 1, "q": 5}
    shapes = {"W": (5, 5), "B": (5, INPUTS), "g": (5,)}

    def energy(self, c, q, u):
        rows = (self.g * torch.nn.functional.softplus(self.W @ q + self.B @ u)).sum()
        return 0.5 * (c @ c) + 0.8 * (q @ q) + 0.2 * (c * q**2).sum() + rows


class Local(Model):
    """Units that do not see each other."""

    states = {"q": 5}
    shapes = {"B": (5, INPUTS), "k": (5,)}

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + q @ (self.B @ u)


class Patterns(Model):
    """A modern Hopfield energy: the logarithm of a sum of exponentials over stored patterns."""

    states = {"q": 6}
    shapes = {"W": (9, 6), "B": (6, INPUTS)}

    def energy(self, q, u):
        return 0.8 * (q**2).sum() - torch.logsumexp(2 * self.W @ q, 0) + q @ (self.B @ u)


class Norms(Model):
    """Functions of sums over all units."""

    states = {"q": 6}
    shapes = {"W": (9, 6), "B": (6, INPUTS)}

    def energy(self, q, u):
        spread = 0.3 * (q - q.mean()).square().sum()
        return torch.sqrt(1 + (q**2).sum()) + spread + log_cosh(self.W @ q) + q @ (self.B @ u)


class Softmax(Model):
    """A function of a reduction, over rows with learned gains and two states."""

    states = {"q": 6, "r": 5}
    shapes = {"W": (9, 6), "V": (9, 5), "B": (6, INPUTS), "k": (9,)}

    def energy(self, q, r, u):
        level = torch.logsumexp(self.k * (self.W @ q) + self.V @ r, 0)
        return 0.8 * (q**2).sum() + 0.5 * (r**2).sum() + 0.5 * level**2 + q @ (self.B @ u)


class Phases(Model):
    """Phase oscillators on a ring with a learned strength per edge: one gather beside the state."""

    states = {"q": 12}
    shapes = {"e": (12,), "B": (12, INPUTS)}

    def energy(self, q, u):
        edges = 1 - torch.cos(q - torch.roll(q, -1))
        return 0.3 * (q @ q) + (self.e * edges).sum() + q @ (self.B @ u)


class Network(Model):
    """Masses on a random graph, two springs with learned strengths on every edge, two masses with none."""

    states = {"q": 12}
    shapes = {"k": (16,), "l": (16,), "B": (12, INPUTS)}
    start = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 2, 4, 6, 8, 1)
    stop = (1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 5, 7, 9, 1, 3, 4)

    def energy(self, q, u):
        stretch = q[list(self.start)] - q[list(self.stop)]
        springs = 0.3 * (self.k * stretch**2).sum() + 0.2 * (self.l * torch.log(torch.cosh(2 * stretch))).sum()
        return 0.4 * (q @ q) + springs + q @ (self.B @ u)


class Gathers(Model):
    """Moves of a function and of a row sum, padded differences, a matrix of moved units, pieces of two states."""

    states = {"s": 14, "r": 10}
    shapes = {"W": (6, 12), "g": (14,), "B": (14, INPUTS)}

    def energy(self, s, r, u):
        smooth = nn.functional.pad(torch.tanh(self.g * s), (1, 1))
        joined = torch.cat([s[::2], r[3:]])
        pairs = log_cosh(self.W @ joined[[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]])
        chain = 0.3 * ((smooth[2:] - 2 * smooth[1:-1] + smooth[:-2]) ** 2).sum()
        products = 0.2 * torch.sin(joined[1:] * joined[:-1]).sum()
        return 0.6 * (s @ s + r @ r) + chain + products + pairs + s @ (self.B @ u)


class Waves(Model):
    """A chain of two channels under a learned kernel with biases, strided and padded."""

    states = {"q": (2, 9)}
    shapes = {"K": (3, 2, 3), "b": (3,), "B": (18, INPUTS)}

    def energy(self, q, u):
        z = nn.functional.conv1d(q[None], self.K, self.b, stride=2, padding=1)
        return 0.6 * (q**2).sum() + log_cosh(z) + q.flatten() @ (self.B @ u)


class Grid(Model):
    """A picture of two groups of channels under a learned kernel, after a function and with holes; a frozen kernel."""

    states = {"q": (4, 4, 3)}
    shapes = {"K": (4, 2, 2, 2), "B": (48, INPUTS)}

    def energy(self, q, u):
        z = nn.functional.conv2d(torch.tanh(q)[None], self.K, groups=2, padding=(0, 1), dilation=(2, 1))
        edges = nn.functional.conv2d(q[None, :1], torch.tensor([[[[1.0, -1.0]]]]))
        return 0.6 * (q**2).sum() + log_cosh(z) + 0.2 * (edges**2).sum() + q.flatten() @ (self.B @ u)


class Upward(Model):
    """A transposed convolution between two layers, its kernel scaled."""

    states = {"s": (3, 4), "r": (2, 8)}
    shapes = {"K": (3, 2, 3), "B": (12, INPUTS)}

    def energy(self, s, r, u):
        up = nn.functional.conv_transpose1d(s[None], 0.5 * self.K, stride=2, padding=1, output_padding=1)[0]
        return 0.6 * (s**2).sum() + 0.5 * (r**2).sum() - (torch.tanh(r) * up).sum() + s.flatten() @ (self.B @ u)


class Relativistic(Model):
    """A kinetic energy of the user's own, without parameters."""

    states = {"q": 6}
    shapes = {"W": (9, 6), "B": (9, INPUTS)}

    def energy(self, q, u):
        return 0.4 * (q**2).sum() + log_cosh(self.W @ q + self.B @ u)

    def kinetic(self, p):
        return torch.sqrt(1 + p**2).sum()


class Masses(Model):
    """Two states, one with learned masses."""

    states = {"q": 6, "r": 4}
    shapes = {"W": (9, 6), "V": (9, 4), "B": (9, INPUTS), "m": (4,), "k": (6,)}

    def energy(self, q, r, u):
        rows = log_cosh(self.W @ q + self.V @ r + self.B @ u)
        return 0.4 * (self.k * q**2).sum() + 0.3 * (r**2).sum() + rows

    def kinetic(self, p, o):
        return (p**2).sum() / 2 + (o**2 / (2 * self.m)).sum()


class Twice(Model):
    """One matrix for state and inputs, one bias in two nodes."""

    states = {"q": 3, "r": 3}
    shapes = {"W": (3, 3), "V": (3, 3), "b": (3,)}

    def energy(self, q, r, u):
        rows = log_cosh(self.W @ q + self.W @ u + self.b) + log_cosh(self.V @ r + self.b)
        return 0.5 * (q @ q + r @ r) + rows + 0.2 * q @ r


class Pieces(Model):
    """Matrices of pieces of the inputs: beside each other in rows' functions, and one that overlaps them for itself."""

    states = {"q": 6}
    shapes = {"W": (5, 6), "B": (5, 2), "D": (5, 1), "E": (6, 2)}

    def energy(self, q, u):
        rows = log_cosh(self.W @ q + self.B @ u[:2] + self.D @ u[2:])
        return 0.5 * (q @ q) + rows - q @ (self.E @ u[1:])


MODELS = [Blocks, Deep, Hopfield, Ring, Tied, Products, Quadratic, Symmetric, Springs, Joined, Inputs, Shared, Local,
          Patterns, Norms, Softmax, Relativistic, Masses, Network, Gathers, Waves, Grid, Upward, Twice, Pieces]

# Those whose RTL is simulated by the fast tests; that of the others by the slow ones.
BUILT = {Blocks, Deep, Products, Softmax, Masses, Gathers, Waves, Twice}

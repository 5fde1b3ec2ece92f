"""Kernels of reid.data.jitter for the CPU: the same arithmetic, one frame in cache at a time."""

import numba
import numpy as np

_kernel = numba.njit(cache=True, nogil=True, error_model="numpy")

_F = np.float32
_RED, _GREEN, _BLUE = _F(0.2989), _F(0.587), _F(0.114)
_ZERO, _ONE, _TWO, _FOUR, _SIX, _TOP = _F(0), _F(1), _F(2), _F(4), _F(6), _F(255)
_TO_LEVEL = _F(255 + 1.0 - 1e-3)
_OFFSETS = (_F(5), _F(3), _F(1))


@_kernel
def apply(frames, orders, factors, active):  # type: ignore[no-untyped-def]
    """Jitter frames, uint8 (N, 3, pixels), in place; arguments as the fields of `Jitter`."""
    gray = np.empty(frames.shape[2], np.float32)
    for n in range(len(frames)):
        frame = frames[n]
        for place in range(4):
            operation = orders[n, place]
            if not active[operation]:
                continue
            factor = factors[n, operation]
            if operation == 0:
                _scale(frame, _F(factor))
            elif operation == 1:
                gray[:] = _F(_gray(frame, gray) / len(gray))
                _blend(frame, gray, _F(factor), _F(1 - factor))
            elif operation == 2:
                _gray(frame, gray)
                _blend(frame, gray, _F(factor), _F(1 - factor))
            else:
                _turn(frame, _F(factor))


@_kernel
def _scale(frame, factor):  # type: ignore[no-untyped-def]
    for channel in range(3):
        line = frame[channel]
        for i in range(len(line)):
            line[i] = np.int32(min(_F(line[i]) * factor, _TOP))


@_kernel
def _gray(frame, gray):  # type: ignore[no-untyped-def]
    """Write whole gray levels; return their sum."""
    red, green, blue = frame[0], frame[1], frame[2]
    total = np.int64(0)
    for i in range(len(gray)):
        level = np.int32(_F(red[i]) * _RED + _F(green[i]) * _GREEN + _F(blue[i]) * _BLUE)
        gray[i] = level
        total += level
    return total


@_kernel
def _blend(frame, gray, factor, rest):  # type: ignore[no-untyped-def]
    for channel in range(3):
        line = frame[channel]
        for i in range(len(line)):
            value = _F(line[i]) * factor + gray[i] * rest
            line[i] = np.int32(min(max(value, _ZERO), _TOP))


@_kernel
def _turn(frame, shift):  # type: ignore[no-untyped-def]
    red, green, blue = frame[0], frame[1], frame[2]
    for i in range(len(red)):
        r, g, b = _F(red[i]) / _TOP, _F(green[i]) / _TOP, _F(blue[i]) / _TOP
        value = max(r, g, b)
        spread = value - min(r, g, b)
        safe = spread if spread > _ZERO else _ONE
        sixth = _FOUR + (r - g) / safe
        sixth = _TWO + (b - r) / safe if value == g else sixth
        sixth = (g - b) / safe if value == r else sixth
        sixth += _SIX * shift
        red[i] = np.int32(_level(sixth + _OFFSETS[0], value, spread))
        green[i] = np.int32(_level(sixth + _OFFSETS[1], value, spread))
        blue[i] = np.int32(_level(sixth + _OFFSETS[2], value, spread))


@numba.njit(cache=True, error_model="numpy", inline="always")
def _level(k, value, spread):  # type: ignore[no-untyped-def]
    k -= _SIX * np.floor(k / _SIX)
    return (value - spread * min(max(min(k, _FOUR - k), _ZERO), _ONE)) * _TO_LEVEL

"""From a render's linear light to a photograph: haze, exposure, tone curve, noise, blur, JPEG.

Everything here is seeded by the view and needs only numpy and Pillow.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

# AgX by its widely used polynomial fit: the same look as Blender's view transform.
_IN = np.array(
    [
        [0.842479062253094, 0.0784335999999992, 0.0792237451477643],
        [0.0423282422610123, 0.878468636469772, 0.0791661274605434],
        [0.0423756549057051, 0.0784336, 0.879142973793104],
    ]
)
_OUT = np.linalg.inv(_IN)


def agx(rgb, punch=1.15, saturation=1.2):
    """Linear Rec. 709 to display values 0..1."""
    x = np.maximum(rgb @ _IN.T, 1e-10)
    x = np.clip((np.log2(x) + 12.47393) / (4.026069 + 12.47393), 0, 1)
    x2 = x * x
    x4 = x2 * x2
    x = (
        15.5 * x4 * x2
        - 40.14 * x4 * x
        + 31.96 * x4
        - 6.868 * x2 * x
        + 0.4298 * x2
        + 0.1191 * x
        - 0.00232
    )
    x = np.maximum(x, 0) ** punch
    luma = x @ [0.2126, 0.7152, 0.0722]
    x = luma[..., None] + (x - luma[..., None]) * saturation
    return np.clip(x @ _OUT.T, 0, 1)


def develop(rgb, depth, view, rng):
    """Returns the finished picture (uint8 array), a short text of what was done, JPEG quality."""
    rgb = np.nan_to_num(rgb.astype(np.float32), posinf=60.0)
    rgb = np.clip(rgb, 0, 60)
    done = []
    sky = depth > 1500
    luma = rgb @ [0.2126, 0.7152, 0.0722]
    # haze: distance pales towards the light of the horizon
    far = np.where(sky, 0, depth)
    horizon = np.median(rgb[sky], axis=0) if sky.sum() > 500 else np.full(3, luma.mean())
    reach = {"noon": 2200, "evening": 1500, "overcast": 900, "dusk": 1500}[
        view["light"]
    ] * rng.uniform(0.7, 1.4)
    veil = (1 - np.exp(-far / reach))[..., None]
    rgb = rgb * (1 - veil) + np.minimum(horizon, 2.5 * luma.mean()) * 0.8 * veil
    # automatic exposure on what is not sky, then the photographer's error
    body = luma[~sky] if (~sky).mean() > 0.15 else luma
    level = np.exp(np.mean(np.log(body + 1e-4)))
    mid = {"noon": 0.25, "evening": 0.2, "overcast": 0.24, "dusk": 0.085}[view["light"]]
    if view["light"] == "dusk":
        mid *= rng.uniform(0.5, 1.15)
    stops = float(np.clip(rng.normal(0, 0.33), -0.7, 0.7))
    rgb = rgb * (mid / level) * 2**stops
    done.append(f"exposure {stops:+.1f}")
    means = (
        rgb[~sky].mean(0) if (~sky).any() else rgb.mean((0, 1))
    )  # a camera's white balance: half way
    rgb = rgb * (means.mean() / np.maximum(means, 1e-6)) ** (
        0.6 if view["light"] == "dusk" else 0.3
    )
    warm = rng.normal(0, 0.06) + {"evening": 0.02, "dusk": -0.03}.get(view["light"], 0)
    rgb = rgb * np.array([1 + warm, 1.0, 1 - warm * 1.2])
    if abs(warm) > 0.05:
        done.append("warm" if warm > 0 else "cool")
    # lens: vignette
    h, w = luma.shape
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    rgb = rgb * (1 - rng.uniform(0.05, 0.28) * (x * x + y * y) / 2)[..., None]
    # glow round lit windows and a bright sky
    bloom = (
        np.asarray(
            Image.fromarray((np.clip(rgb.mean(2) - 1.2, 0, 6) * 40).astype(np.uint8)).filter(
                ImageFilter.GaussianBlur(6)
            ),
            np.float32,
        )
        / 40
    )
    rgb = rgb + bloom[..., None] * (0.16 if view["light"] != "dusk" else 0.3) * np.array(
        [1.0, 0.93, 0.85]
    )
    # sensor noise, more of it in the dark, soft like after a camera's own denoising
    strength = abs(rng.normal(0.012, 0.01)) + (0.03 if view["light"] == "dusk" else 0.004)
    noise = rng.normal(0, 1, rgb.shape) * 0.7 + rng.normal(0, 1, rgb.shape[:2])[..., None] * 0.7
    rgb = np.maximum(rgb + noise * strength * np.sqrt(np.maximum(rgb, 0) * 0.25 + 0.002), 0)
    if strength > 0.03:
        done.append("noise")
    out = agx(rgb, rng.uniform(1.05, 1.3), rng.uniform(1.05, 1.45))
    if view["grey"]:
        weights = rng.dirichlet([4, 6, 2])
        grey = np.clip(out @ weights, 0, 1)
        grey = grey**0.9
        tone = np.array([1.0, 0.97, 0.9]) if rng.random() < 0.4 else np.ones(3)
        out = grey[..., None] * tone
        done.append("black and white" if tone[2] == 1 else "sepia")
    picture = Image.fromarray((np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8))
    if rng.random() < 0.2 or (view["light"] == "dusk" and rng.random() < 0.3):
        radius = rng.uniform(0.5, 1.1)
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
        done.append(f"blur {radius:.1f}")
    else:
        picture = picture.filter(ImageFilter.UnsharpMask(1.0, int(rng.uniform(30, 90)), 2))
    quality = int(rng.choice([90, 86, 80, 66, 50], p=[0.3, 0.3, 0.22, 0.12, 0.06]))
    if quality < 70:
        done.append(f"jpeg {quality}")
    return picture, "; ".join(done), quality


def jpeg(picture, quality):
    """JPEG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()

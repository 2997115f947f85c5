"""HMR2 (Goel et al. 2023): a large vision transformer and a decoder with one query."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .rotations import rot6d_to_rotmat
from .spec import ImageInput, NetworkSpec, recorded
from .spin_hmr import MeshParameters

WIDTH, TOKENS = 1280, (16, 12)


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """(B, N, C) of queries (B, N, C) over keys and values (B, M, C), by heads."""
    split = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    return scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, -1)
        return self.proj(attend(queries, keys, values, self.heads))


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), _Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), _MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 16, 16, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """ViT-H: image (B, 3, 256, 192) to (B, 1280, 16, 12)."""

    def __init__(self, blocks: int = 32, heads: int = 16) -> None:
        super().__init__()
        self.patch_embed = _Patches()
        # The first position belongs to a class token that does not exist; it is added to all.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TOKENS[0] * TOKENS[1], WIDTH))
        self.blocks = nn.Sequential(*(_Block(WIDTH, heads) for _ in range(blocks)))
        self.last_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image) + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        return self.last_norm(self.blocks(x)).transpose(1, 2).unflatten(-1, TOKENS)


class _SelfAttention(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        queries, keys, values = self.to_qkv(x).chunk(3, -1)
        return self.to_out(attend(queries, keys, values, heads=8))


class _CrossAttention(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.to_kv = nn.Linear(WIDTH, 2 * inner, bias=False)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        keys, values = self.to_kv(context).chunk(2, -1)
        return self.to_out(attend(self.to_q(x), keys, values, heads=8))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Identity(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.net(x)


class _PreNorm(nn.Module):
    """x + fn(norm(x))."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(width), fn

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return x + self.fn(self.norm(x), context)


class _Layers(nn.Module):
    def __init__(self, width: int, inner: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                _PreNorm(width, part)
                for part in (
                    _SelfAttention(width, inner),
                    _CrossAttention(width, inner),
                    _FeedForward(width),
                )
            )
            for _ in range(count)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            for part in layer.children():
                x = part(x, context)
        return x


class _Decoder(nn.Module):
    """Tokens (B, 192, 1280) to (B, 1024). The one query's own input is always zero."""

    def __init__(self, width: int = 1024, inner: int = 512, layers: int = 6) -> None:
        super().__init__()
        self.to_token_embedding = nn.Linear(1, width)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = _Layers(width, inner, layers)

    def forward(self, context: Tensor) -> Tensor:
        nothing = context.new_zeros(context.shape[0], 1, 1)
        query = self.to_token_embedding(nothing) + self.pos_embedding
        return self.transformer(query, context)[:, 0]


class SMPLHead(nn.Module):
    """Tokens (B, 192, 1280) to six numbers a joint, shape, camera."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.transformer = _Decoder()
        self.decpose = nn.Linear(1024, 144)
        self.decshape = nn.Linear(1024, 10)
        self.deccam = nn.Linear(1024, 3)
        self.register_buffer("init_body_pose", torch.zeros(1, 144))
        self.register_buffer("init_betas", torch.zeros(1, 10))
        self.register_buffer("init_cam", torch.zeros(1, 3))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.transformer(context)
        return (
            self.init_body_pose + self.decpose(x),
            self.init_betas + self.decshape(x),
            self.init_cam + self.deccam(x),
        )


class HMR2(nn.Module):
    """Image (B, 3, 256, 256), of which the middle 192 columns count, to mesh parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.smpl_head = ViT(), SMPLHead()

    def forward(self, image: Tensor) -> MeshParameters:
        feature = self.backbone(image[..., 32:-32])
        pose, betas, cam = self.smpl_head(feature.flatten(2).transpose(1, 2))
        rotmat = rot6d_to_rotmat(pose.unflatten(-1, (24, 6)), layout="columns")
        return MeshParameters(rotmat, betas, cam)


def _probe(network: HMR2, image: Tensor) -> dict[str, Tensor]:
    with recorded(network, feature="backbone") as seen:
        rotmat, betas, cam = network(image)
    return {
        "global_orient": rotmat[:, :1],
        "body_pose": rotmat[:, 1:],
        "betas": betas,
        "cam": cam,
        "feature": seen["feature"],
    }


SPECS = (
    NetworkSpec(
        "hmr2",
        HMR2,
        ImageInput((256, 256), crop="hmr2"),
        MeshParameters._fields,
        skeleton="smpl24",
        unit="rotation matrices; camera t = (tx, ty, 2 * 5000 / (256 s)) m with f = 5000 px",
        licence="MIT",
        parameters=670_459_037,
        gmacs=125.5,
        ignore=("smpl.", "discriminator.", "initialized"),
        probe=_probe,
    ),
)

"""The Dynamic Mobile-Former in PyTorch: the reference every exported artifact is compared with.

Feature maps are (B, C, H, W); tokens are (B, M, D). The paper's Figure 2 and Table 1; where the paper is silent, the
released code's choices (named where they are made).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmf.config import DMFConfig
from dmf.dynamic_conv import DynamicConv2d, KernelAttention


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's branch is dropped with this probability, or scaled up."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep) / keep


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2): x + gamma * x * N / mean(N) + beta, N the spatial L2 norm.

    `over` says what the mean is taken over: "channel" as in ConvNeXt V2, or "spatial" as in the released code, which
    takes it over an axis of length 1, so that the ratio is N / (N + 1e-6).
    """

    def __init__(self, channels: int, over: str) -> None:
        super().__init__()
        self.over = over
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        mean = norm.mean(1, keepdim=True) if self.over == "channel" else norm
        return self.gamma * (x * (norm / (mean + 1e-6))) + self.beta + x


class Stem(nn.Module):
    """3x3 convolution of stride 2 with bias, BN, GELU: (B, 3, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, 2, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.bn(self.conv(x)))


class LiteBottleneck(nn.Module):
    """1x1, 3x3 depthwise, 1x1, each with BN, GELU between them; no residual: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.pw_conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dw_conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.pw_conv2 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.bn1(self.pw_conv1(x)))
        x = F.gelu(self.bn2(self.dw_conv(x)))
        return self.bn3(self.pw_conv2(x))


class Mobile2Former(nn.Module):
    """Cross-attention from the feature map to the tokens, equations 3 to 5; keys and values are the feature map itself.

    The residual is added to the *normalised* tokens (the released code's choice).
    """

    def __init__(self, channels: int, token_dim: int, heads: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(token_dim)
        self.q = nn.Linear(token_dim, channels, bias=False)
        self.fc = nn.Linear(channels, token_dim, bias=False)
        self.drop = nn.Sequential(nn.Dropout(dropout), DropPath(drop_path))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, H, W), (B, M, D) -> (B, M, D)"""
        tokens = self.norm(tokens)
        kv = x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # (B, h, HW, C/h)
        q = self.q(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, h, M, C/h)
        attention = (q @ kv.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        z = (attention @ kv).transpose(1, 2).flatten(2)  # (B, M, C)
        return self.drop(self.fc(z)) + tokens


class TokenAttention(nn.Module):
    """Multi-head self-attention over the tokens: (B, M, D) -> (B, M, D)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, h, M, D/h) each
        attention = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        return self.drop(self.proj((attention @ v).transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Two linear layers without bias, GELU between them: (B, M, D) -> (B, M, D)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class Former(nn.Module):
    """A pre-norm Transformer block over the tokens (section 3.4): (B, M, D) -> (B, M, D)."""

    def __init__(self, dim: int, heads: int, expansion: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_attention = TokenAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, dim * expansion, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.token_attention(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class DynamicMobile(nn.Module):
    """Inverted bottleneck of dynamic convolutions (section 3.3), after a static stride-2 one where a stage begins."""

    def __init__(self, config: DMFConfig, in_channels: int, hidden: int, out_channels: int, downsample: bool) -> None:
        super().__init__()
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels),
                nn.BatchNorm2d(in_channels),
                nn.GELU(),
            )
            if downsample
            else None
        )
        self.pw_conv1 = dynamic_conv(config, in_channels, hidden, 1, config.groups)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dw_conv = dynamic_conv(config, hidden, hidden, 3, hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.pw_conv2 = dynamic_conv(config, hidden, out_channels, 1, config.groups)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C_in, H, W), (B, D) -> (B, C_out, H', W')"""
        if self.downsample is not None:
            x = self.downsample(x)
        x = F.gelu(self.bn1(self.pw_conv1(x, z)))
        x = F.gelu(self.bn2(self.dw_conv(x, z)))
        return self.bn3(self.pw_conv2(x, z))


class IRFFN(nn.Module):
    """Inverted residual FFN with GRN (section 3.5, equations 6 and 7): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, expansion: float, grn: str) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.pw_conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dw_conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.grn = GRN(hidden, grn)
        self.pw_conv2 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.bn1(self.pw_conv1(x)))
        x = F.gelu(self.grn(self.dw_conv(x) + x))
        return self.bn2(self.pw_conv2(x))


class DMFBlock(nn.Module):
    """Feature map and tokens through mobile2former, former, dynamic mobile and IRFFN (Figure 2, right)."""

    def __init__(self, config: DMFConfig, index: int, drop_path: float) -> None:
        super().__init__()
        in_channels = (config.lite_channels, *config.block_channels)[index]
        out_channels = config.block_channels[index]
        self.mobile2former = mobile2former(config, in_channels, config.cross_heads[index], drop_path)
        self.former = former(config, drop_path)
        self.dynamic_mobile = DynamicMobile(
            config, in_channels, config.block_hidden[index], out_channels, index in config.downsample
        )
        self.norm = nn.GroupNorm(1, out_channels)
        self.ffn = IRFFN(out_channels, config.ffn_expansion, config.grn)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W), (B, M, D) -> (B, C_out, H', W'), (B, M, D)"""
        tokens = self.former(self.mobile2former(x, tokens))
        x = self.dynamic_mobile(x, tokens[:, 0])
        return x + self.drop_path(self.ffn(self.norm(x))), tokens


class Head(nn.Module):
    """Pooled features and the first token to logits: (B, C, H, W), (B, M, D) -> (B, classes)."""

    def __init__(self, config: DMFConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.end_channels + config.token_dim, config.head_hidden)
        self.drop = nn.Dropout(config.dropout)
        self.fc2 = nn.Linear(config.head_hidden, config.num_classes)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc2(self.drop(F.hardswish(self.fc1(torch.cat([pooled, tokens[:, 0]], 1)))))


class DMF(nn.Module):
    """Dynamic Mobile-Former for images of any size that `config.stride` divides, (B, 3, H, W)."""

    def __init__(self, config: DMFConfig) -> None:
        super().__init__()
        self.config = config
        blocks = len(config.block_hidden)
        drop_path = torch.linspace(0, config.drop_path, blocks + 2, device="cpu").tolist()
        self.tokens = nn.Parameter(torch.randn(1, config.num_tokens, config.token_dim))
        self.stem = Stem(config.stem_channels)
        self.lite_bottleneck = LiteBottleneck(config.stem_channels, config.lite_hidden, config.lite_channels)
        self.blocks = nn.ModuleList(DMFBlock(config, i, drop_path[i]) for i in range(blocks))
        last = config.block_channels[-1]
        self.end_mobile2former = mobile2former(config, last, config.cross_heads[-1], drop_path[-2])
        self.end_former = former(config, drop_path[-1])
        self.end_conv = dynamic_conv(config, last, config.end_channels, 1, 1)
        self.end_bn = nn.BatchNorm2d(config.end_channels)
        self.head = Head(config)
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)"""
        features, tokens = self._blocks(images)
        tokens = self.end_former(self.end_mobile2former(features[-1], tokens))
        x = F.gelu(self.end_bn(self.end_conv(features[-1], tokens[:, 0])))
        return self.head(x, tokens)

    def forward_features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the last feature map of each stage, strides 4, 8, 16, 32 (section 3.6)."""
        return self._blocks(images)[0]

    def _blocks(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        height, width = images.shape[2:]
        if height % self.config.stride or width % self.config.stride or not height * width:
            raise ValueError(f"images are {height} x {width}; both sides must be multiples of {self.config.stride}")
        x = self.lite_bottleneck(self.stem(images))
        tokens = self.tokens.expand(images.shape[0], -1, -1)
        features = []
        for i, block in enumerate(self.blocks):
            x, tokens = block(x, tokens)
            if i in self.config.feature_blocks:
                features.append(x)
        return features, tokens

    def set_temperature(self, temperature: float) -> None:
        """Of every kernel attention, positive (section 3.3: annealed to 1 in the early epochs). Raises `ValueError`."""
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be positive and finite")
        for module in self.modules():
            if isinstance(module, KernelAttention):
                module.temperature.fill_(temperature)


def dynamic_conv(
    config: DMFConfig, in_channels: int, out_channels: int, kernel_size: int, groups: int
) -> DynamicConv2d:
    return DynamicConv2d(
        in_channels,
        out_channels,
        kernel_size,
        config.token_dim,
        padding=kernel_size // 2,
        groups=groups,
        num_kernels=config.num_kernels,
        token_input=config.token_input,
        residual_kernel=config.residual_kernel,
        routing=config.routing,
        bank_init=config.bank_init,
    )


def mobile2former(config: DMFConfig, channels: int, heads: int, drop_path: float) -> Mobile2Former:
    return Mobile2Former(channels, config.token_dim, heads, config.dropout, drop_path)


def former(config: DMFConfig, drop_path: float) -> Former:
    return Former(config.token_dim, config.former_heads, config.former_expansion, config.dropout, drop_path)


def initialize(module: nn.Module) -> None:
    """The released code's: truncated normal for linear layers, He for convolutions and kernel attentions."""
    if isinstance(module, KernelAttention):
        for net in (module.net1, module.net2):
            nn.init.kaiming_normal_(net.weight, mode="fan_out")
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

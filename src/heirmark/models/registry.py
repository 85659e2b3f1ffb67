"""The built-in models by name, each imported when it is used.

Names alone stand here: what a stage's result rests on is the class that a name stands for, which its configuration says
(:func:`heirmark.models.architecture`), and not this table. So a new model leaves everything valid that does not use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heirmark.configuration import Registry

if TYPE_CHECKING:
    from heirmark.models.layers import BuiltIn

MODELS: Registry[type[BuiltIn]] = Registry(
    "heirmark.models",
    {
        "naivenet": "simple:NaiveNet",
        "alexnet": "simple:AlexNet",
        "vgg-like": "simple:VGGLike",
        "resnet18": "residual:ResNet18",
        "wrn-16-4": "residual:WideResNet16",
        "resnet50": "residual:ResNet50",
        "mobilenet-v2": "mobilenet:MobileNetV2",
        "googlenet": "googlenet:GoogLeNet",
        "vit-s": "vit:ViT",
        "mobilevit-s": "mobilevit:MobileViT",
        "m5": "waves:M5",
        "mel-cnn": "waves:MelCNN",
        "densenet121": "from_timm:DenseNet121",
        "densenet161": "from_timm:DenseNet161",
        "efficientnet-b0": "from_timm:EfficientNetB0",
        "efficientnet-b2": "from_timm:EfficientNetB2",
        "lstm": "texts:LSTM",
        "text-cnn": "texts:TextCNN",
        "fast-text": "texts:FastText",
        "transformer": "from_transformers:Transformer",
    },
)
"""The built-in models; DenseNets and EfficientNets need the extra ``heirmark[timm]``."""

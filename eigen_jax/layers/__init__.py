"""Layers whose gradients are stated where that is faster than deriving them, for the networks of both arms."""

from eigen_jax.layers.convolution import Conv, ConvLayer, convolve
from eigen_jax.layers.flops import count_flops
from eigen_jax.layers.normalization import BatchNormRelu
from eigen_jax.layers.pooling import max_pool, max_pool_of, same_padding

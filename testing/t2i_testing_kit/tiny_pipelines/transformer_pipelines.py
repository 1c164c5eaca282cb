"""Makers of tiny pipelines with a diffusion transformer."""

from typing import Any

import diffusers
from diffusers.guiders import AdaptiveProjectedMixGuidance
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from t2i_testing_kit.tiny_pipelines import text_encoders as text
from t2i_testing_kit.tiny_pipelines import vaes


def _seeded_pads(transformer: Any) -> Any:
    """Its padding tokens come uninitialised."""
    for name in ("x_pad_token", "cap_pad_token"):
        getattr(transformer, name).data.normal_(std=0.02)
    return transformer


def stable_diffusion_3(scheduler: Any, *, t5: bool = True, **transformer: Any) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        vae=vaes.flow_vae(),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=32,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=96,
            pooled_projection_dim=64,
            pos_embed_max_size=32,
            **transformer,
        ),
        text_encoder=text.clip_encoder(CLIPTextModelWithProjection),
        text_encoder_2=text.clip_encoder(CLIPTextModelWithProjection),
        text_encoder_3=text.t5_encoder(96) if t5 else None,
        tokenizer=text.clip_tokenizer(),
        tokenizer_2=text.clip_tokenizer(),
        tokenizer_3=text.t5_tokenizer() if t5 else None,
        scheduler=scheduler,
    )


def flux(scheduler: Any, *, kind: str = "FluxPipeline", guidance_embeds: bool = True) -> Any:
    return getattr(diffusers, kind)(
        vae=vaes.flow_vae(),
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        text_encoder=text.clip_encoder(CLIPTextModel),
        text_encoder_2=text.t5_encoder(32),
        tokenizer=text.clip_tokenizer(),
        tokenizer_2=text.t5_tokenizer(),
        scheduler=scheduler,
    )


def _flux2_transformer(joint: int, guidance_embeds: bool) -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=joint,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def flux2_dev(scheduler: Any) -> Any:
    # It reads the hidden states of layers 10, 20 and 30.
    return diffusers.Flux2Pipeline(
        vae=vaes.flux2_vae(),
        transformer=_flux2_transformer(3 * 8, guidance_embeds=True),
        text_encoder=text.mistral_encoder(8, layers=31),
        tokenizer=text.pixtral_processor(),
        scheduler=scheduler,
    )


def flux2_klein(scheduler: Any, *, distilled: bool) -> Any:
    # It reads the hidden states of layers 9, 18 and 27.
    return diffusers.Flux2KleinPipeline(
        vae=vaes.flux2_vae(),
        transformer=_flux2_transformer(3 * 8, guidance_embeds=False),
        text_encoder=text.qwen3_encoder(Qwen3ForCausalLM, 8, layers=28),
        tokenizer=text.qwen_tokenizer(),
        scheduler=scheduler,
        is_distilled=distilled,
    )


def qwen_image(scheduler: Any, *, edit: bool = False) -> Any:
    parts = {
        "vae": vaes.qwen_vae(16 if edit else 4),  # an edit resizes its image to a megapixel
        "transformer": diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        "text_encoder": text.qwen_vl_encoder(16),
        "tokenizer": text.qwen_tokenizer(),
        "scheduler": scheduler,
    }
    if edit:
        return diffusers.QwenImageEditPipeline(processor=text.qwen_processor(), **parts)
    return diffusers.QwenImagePipeline(**parts)


def z_image(scheduler: Any) -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    return diffusers.ZImagePipeline(
        vae=vaes.flow_vae(),
        transformer=_seeded_pads(transformer),
        text_encoder=text.qwen3_encoder(Qwen3Model),
        tokenizer=text.qwen_tokenizer(),
        scheduler=scheduler,
    )


def sana(scheduler: Any, *, sprint: bool = False) -> Any:
    kind = diffusers.SanaSprintPipeline if sprint else diffusers.SanaPipeline
    options = {"qk_norm": "rms_norm_across_heads", "guidance_embeds": True} if sprint else {}
    return kind(
        vae=vaes.dc_vae(),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=8,
            sample_size=32,
            **options,
        ),
        text_encoder=text.gemma_encoder(),
        tokenizer=text.gemma_tokenizer(),
        scheduler=scheduler,
    )


def pixart_sigma(scheduler: Any) -> Any:
    return diffusers.PixArtSigmaPipeline(
        vae=vaes.kl_vae(),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=32,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
        ),
        text_encoder=text.t5_encoder(32),
        tokenizer=text.t5_tokenizer(),
        scheduler=scheduler,
    )


def lumina2(scheduler: Any) -> Any:
    return diffusers.Lumina2Pipeline(
        vae=vaes.flow_vae(scale=8),
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=16,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 2, 2),
            cap_feat_dim=8,
        ),
        text_encoder=text.gemma_encoder(),
        tokenizer=text.gemma_tokenizer(),
        scheduler=scheduler,
    )


def hunyuan_image(scheduler: Any, *, distilled: bool = False) -> Any:
    guiders = (
        [] if distilled else [AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=s) for s in (2, 3)]
    )
    return diffusers.HunyuanImagePipeline(
        vae=vaes.hunyuan_vae(),
        transformer=diffusers.HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            guidance_embeds=distilled,
            use_meanflow=distilled,
            text_embed_dim=16,
            text_embed_2_dim=32,
            rope_axes_dim=(4, 4),
        ),
        text_encoder=text.qwen_vl_encoder(16),
        tokenizer=text.qwen_tokenizer(),
        text_encoder_2=text.t5_encoder(32, vocab_size=384),
        tokenizer_2=text.byt5_tokenizer(),
        scheduler=scheduler,
        guider=guiders[0] if guiders else None,
        ocr_guider=guiders[1] if guiders else None,
    )


def chroma(scheduler: Any) -> Any:
    return diffusers.ChromaPipeline(
        vae=vaes.flow_vae(),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
        text_encoder=text.t5_encoder(32),
        tokenizer=text.t5_tokenizer(),
        scheduler=scheduler,
    )


def kandinsky5(scheduler: Any) -> Any:
    return diffusers.Kandinsky5T2IPipeline(
        vae=vaes.flow_vae(scale=8),
        transformer=diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            in_text_dim=16,
            in_text_dim2=32,
            time_dim=16,
            out_visual_dim=4,
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=2,
            axes_dims=(2, 2, 4),
        ),
        text_encoder=text.qwen_vl_encoder(16),
        tokenizer=text.qwen_processor(),
        text_encoder_2=text.clip_encoder(CLIPTextModel, positions=77),
        tokenizer_2=text.clip_tokenizer(),
        scheduler=scheduler,
    )


def ovis_image(scheduler: Any) -> Any:
    return diffusers.OvisImagePipeline(
        vae=vaes.flow_vae(),
        transformer=diffusers.OvisImageTransformer2DModel(
            in_channels=16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
        text_encoder=text.qwen3_encoder(Qwen3Model),
        tokenizer=text.qwen_tokenizer(),
        scheduler=scheduler,
    )


def glm_image(scheduler: Any) -> Any:
    codes = 128
    return diffusers.GlmImagePipeline(
        tokenizer=text.byt5_tokenizer(),
        processor=text.glm_image_processor(),
        text_encoder=text.t5_encoder(16, vocab_size=384),
        vision_language_encoder=text.glm_image_encoder(codes),
        vae=vaes.kl_vae(4, scale=8, latents_mean=[0.1, -0.1, 0.0, 0.2], latents_std=[1.0, 1.5, 0.8, 1.2]),
        transformer=diffusers.GlmImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            prior_vq_quantizer_codebook_size=codes,
        ),
        scheduler=scheduler,
    )

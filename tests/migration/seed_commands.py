"""The commands of the references, exactly as their pages have them, by the run file that each is here."""

from __future__ import annotations

LAUNCH = "CUDA_VISIBLE_DEVICES=0,1 python -m torch.distributed.launch --nproc_per_node=2 "
RUN_BASE = r"""# 单机单卡/多卡，num_processes要和gpu_ids数量相等，可以指定mixed_precision=fp16开启半精度训练
# model_checkpoint在output_dir目录下，最终模型保存在"output_dir/model_checkpoint"中

accelerate launch --multi_gpu --num_processes=2 --gpu_ids="0,1" --num_machines=1 --mixed_precision=no run_base.py \
	--seed 42 \
	--do_train \
	--train_file path/to/your/train_file \
	--validation_file path/to/your/validation_file \
	--do_predict \
	--test_file path/to/your/test_file \
	--cache_dir ../../data/cache_dir \
	--model_name_or_path path/to/pretrained_language_model \
RESUME	--per_device_train_batch_size 8 \
	--per_device_eval_batch_size 8 \
	--learning_rate 3e-5 \
	--num_train_epochs 2 \
	--checkpointing_steps epoch \
	--output_dir ../../data/outputs/clf \
	--model_checkpoint final_checkpoint \
	--with_tracking \
	--report_to tensorboard
"""
NER = LAUNCH + (
    "run_ner.py --train_data_file ./data/ner/msra/train.json --dev_data_file ./data/ner/msra/dev.json "
    "--label_file ./data/ner/msra/labels.txt --tag bios --learning_rate 5e-5 --save_best_model --batch_size 32"
)
TO_RUN_FILES: dict[str, str] = {
    "seed-003-classifier": LAUNCH + "run_classifier.py --train_data_file ./data/ChnSentiCorp/train.tsv "
    "--dev_data_file ./data/ChnSentiCorp/dev.tsv --label_file ./data/ChnSentiCorp/labels.txt "
    "--save_best_model --epochs 3 --batch_size 32",
    "seed-003-classifier-pair": LAUNCH + "run_classifier.py --train_data_file ./data/AFQMC/train.txt "
    "--dev_data_file ./data/AFQMC/dev.txt --label_file ./data/AFQMC/labels.txt --is_text_pair "
    "--save_best_model --epochs 3 --batch_size 32",
    "seed-003-sentencebert": LAUNCH + "run_sentencebert.py --train_data_file ./data/LCQMC/train.txt "
    "--dev_data_file ./data/LCQMC/dev.txt --save_best_model --epochs 3 --batch_size 32",
    "seed-003-sentencebert-nli": LAUNCH + "run_sentencebert.py --train_data_file ./data/CMNLI/train.txt "
    "--dev_data_file ./data/CMNLI/dev.txt --label_file ./data/CMNLI/labels.txt --is_nli --save_best_model "
    "--epochs 3 --batch_size 32",
    "seed-003-simcse": LAUNCH + "run_simcse.py --pretrained_model_name_or_path uer/chinese_roberta_L-6_H-128 "
    "--train_data_file ./data/zhwiki/wiki_sents.txt --dev_data_file ./data/STS-B/sts-b-dev.txt "
    "--learning_rate 5e-5 --epochs 1 --dropout 0.1 --margin 0.2 --scale 20 --batch_size 32",
    "seed-003-batchneg": "CUDA_VISIBLE_DEVICES=0,1,2,3 python -m torch.distributed.launch --nproc_per_node=4 "
    "run_batchneg.py --pretrained_model_name_or_path uer/chinese_roberta_L-6_H-128 --train_data_file "
    "./data/batchneg/paraphrase_lcqmc_semantic_pairs.txt --dev_data_file ./data/STS-B/sts-b-dev.txt "
    "--learning_rate 5e-5 --epochs 3 --margin 0.2 --scale 20 --batch_size 64 --mean_loss",
    "seed-003-batchneg-stage2": LAUNCH + "run_batchneg.py --pretrained_model_name_or_path "
    "uer/chinese_roberta_L-6_H-128 --init_from_ckpt ./checkpoint/pytorch_model.bin --train_data_file "
    "./data/batchneg/domain_finetune.txt --dev_data_file ./data/STS-B/sts-b-dev.txt --learning_rate 1e-5 "
    "--epochs 1 --margin 0.2 --scale 20 --batch_size 32 --mean_loss",
    "seed-003-ner": NER,
    "seed-003-ner-crf": f"{NER} --use_crf --crf_learning_rate 1e-4",
    "seed-004-train": RUN_BASE.replace("RESUME", ""),
    "seed-004-resume": RUN_BASE.replace("RESUME", "\t--resume_from_checkpoint path/to/last_checkpoint \\\n"),
    "seed-000-tnews": r"""accelerate launch tnews.py \
    --model_name_or_path junnyu/ChineseBERT-base \
    --max_length 256 \
    --per_device_train_batch_size 32 \
    --per_device_eval_batch_size 32 \
    --learning_rate 3e-5 \
    --seed 42 \
    --output_dir tnews_outputs \
    --num_train_epochs 3
""",
}
"""The name of the example, and the command."""
RUN_BASE_PREDICT = r"""# 当test_file中无标签信息时，必须手动指定`num_labels`，回归任务中该值应为1
accelerate launch --multi_gpu --num_processes=2 --gpu_ids="0,1" --num_machines=1 run_base.py \
	--seed 42 \
	--cache_dir ../../data/cache_dir \
	--do_predict \
	--num_labels 5(optional) \
	--per_device_eval_batch_size 8 \
	--test_file path/to/your/test_file \
	--output_dir ../../data/outputs/clf \
	--model_checkpoint final_checkpoint
"""

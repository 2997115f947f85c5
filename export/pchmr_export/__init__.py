"""Checkpoints to ONNX, to engines, to a verified bundle. The way of the data, file by file:

| step | files |
|---|---|
| the verb `pchmr export` | cli |
| the recipe, read and checked; ready ones by name | recipe, strict_toml, recipe_checks, ready |
| from there to a bundle, whole or not at all | assemble |
| body and calibration weights | recipe_body, calibration_weights |
| who is in the frame: .tflite -> ONNX | people_stages <- blazepose <- tflite, tflite_file |
| other stages: checkpoint, network, form, graph | stage_build <- stage_forms, image_input |
| ... of several frames, its state in and out | streaming_export |
| ... a network of the user's own | custom_stage |
| a torch module as ONNX that every backend reads | onnx_graph, fold_norms |
| the stage's gates, PyTorch against engines | gates, input_gate, on examples |
| the whole's gates, PyTorch against the runtime | composition, with torch_composition |
| ... whose parts are | heatmap_decoders, custom_composition |
| other precisions, within budgets | lowering <- precision <- half, quantise |
| ... judged by stage and by mesh, on real frames | budgets, mesh_budget, rehearsal |
| what is kept, to go on from | work_folder |
| room on the disks | room |
| the report, in the bundle's folder | report, report_plots, latency |

Beside that way: one ONNX file of the whole (single_file <- single_whole, single_forms,
single_rows), of the body or the calibration alone (body_export), and programs for torch's own
runtime (torch_programs <- blazepose_module). The bundle `open` needs no torch: open_bundle <-
open_body <- open_body_*; what ships with it was made by open_networks and blazepose_parity.
"""

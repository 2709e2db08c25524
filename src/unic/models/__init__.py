"""Networks: any timm model as an Encoder, the ladder of projectors, and the student that joins the two."""
